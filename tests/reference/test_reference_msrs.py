"""RDMSR and WRMSR of the registers of kernel entry (SDM Vol. 2B and 2D; Vol. 3A, 2.2.1 and 10.8.5; Vol. 4)."""

from __future__ import annotations

import pytest
from reference_machine import KERNEL_DATA, NOT_CANONICAL, outcome, run

from reference.profiles import Efer

RDMSR, WRMSR = "0f32", "0f30"
EFER = 0xC000_0080
REGISTERS = {
    0x174: "sysenter_cs",
    0x175: "sysenter_esp",
    0x176: "sysenter_eip",
    EFER: "efer",
    0xC000_0081: "star",
    0xC000_0082: "lstar",
    0xC000_0083: "cstar",
    0xC000_0084: "sfmask",
    0xC000_0100: "fs_base",
    0xC000_0101: "gs_base",
    0xC000_0102: "kernel_gs_base",
}
HOLDS_AN_ADDRESS = {"sysenter_esp", "sysenter_eip", "lstar", "cstar", "fs_base", "gs_base", "kernel_gs_base"}
NAMES = [pytest.param(number, name, id=name) for number, name in REGISTERS.items()]


def wrmsr(number: int, value: int, **parts: object) -> tuple[str, list[int]]:
    """(outcome, the registers) after WRMSR; the upper halves of the operands do not matter."""
    high = 0x1234_5678 << 32
    ended = run(WRMSR, rcx=high | number, rax=high | value & 0xFFFF_FFFF, rdx=high | value >> 32, **parts)
    return outcome(ended), [ended.register(name) for name in REGISTERS.values()]


@pytest.mark.parametrize(("number", "name"), NAMES)
def test_rdmsr_splits_the_register_into_edx_and_eax(number: int, name: str) -> None:
    value = 0xD01 if name == "efer" else 0xFFFF_8001_2345_6789

    ended = run(RDMSR, rcx=0xFFFF << 32 | number, rax=1 << 63, rdx=1 << 63, **{name: value})

    assert [ended.register("rax"), ended.register("rdx")] == [value & 0xFFFF_FFFF, value >> 32]


@pytest.mark.parametrize(("number", "name"), NAMES)
def test_wrmsr_writes_that_register_only(number: int, name: str) -> None:
    value = 0xD00 if name == "efer" else 0x33 if name in ("sysenter_cs", "sfmask") else 0xFFFF_8001_2345_6789
    before = wrmsr(0xC000_0081, 0x0023_0010_0000_0000)[1]

    result, after = wrmsr(number, value)

    expected = [value if register == name else old for register, old in zip(REGISTERS.values(), before, strict=True)]
    assert (result, after) == ("ended", expected)


@pytest.mark.parametrize(("number", "name"), NAMES)
def test_wrmsr_demands_a_canonical_address_where_the_register_holds_one(number: int, name: str) -> None:
    if name in HOLDS_AN_ADDRESS:
        assert wrmsr(number, NOT_CANONICAL)[0] == "#GP(0x0)"
    elif name == "star":
        assert wrmsr(number, NOT_CANONICAL)[0] == "ended"


@pytest.mark.parametrize(
    ("value", "expected"), [(0xFFFF_FFFF, "ended"), (1 << 32, "not modelled: the upper half of a SYSENTER address on AMD")]
)
@pytest.mark.parametrize("number", [0x175, 0x176])
def test_amds_sysenter_addresses_have_32_bits(number: int, value: int, expected: str) -> None:
    assert wrmsr(number, value, profile="amd")[0] == expected


@pytest.mark.parametrize("number", [0x174, 0xC000_0084])
def test_what_a_register_keeps_of_its_unused_bits_is_open(number: int) -> None:
    assert wrmsr(number, 1 << 32)[0].startswith("not modelled: unused bits of")


@pytest.mark.parametrize("code", [RDMSR, WRMSR])
@pytest.mark.parametrize(
    ("number", "expected"),
    [
        pytest.param(0, "not modelled: msr 0x0", id="first-number"),
        pytest.param(0x10, "not modelled: msr 0x10", id="a-register-outside-the-model"),
        pytest.param(0xC001_0015, "not modelled: msr 0xc0010015", id="an-amd-register"),
        pytest.param(0x2000, "#GP(0x0)", id="after-the-first-range"),
        pytest.param(0xC001_2000, "#GP(0x0)", id="after-the-last-range"),
        pytest.param(0xFFFF_FFFF, "#GP(0x0)", id="last-number"),
    ],
)
def test_registers_that_are_not_there(code: str, number: int, expected: str) -> None:
    assert outcome(run(code, rcx=number)) == expected


@pytest.mark.parametrize(
    ("value", "profile", "expected", "after"),
    [
        pytest.param(0xD00, "intel", "ended", 0xD00, id="sce-off"),
        pytest.param(0x501, "intel", "not modelled: EFER.NXE cleared", 0xD01, id="nxe-off"),
        pytest.param(0x901, "intel", "ended", 0xD01, id="lma-is-read-only"),
        pytest.param(0x901, "amd", "not modelled: EFER.LMA written with another value on AMD", 0xD01, id="lma-on-amd"),
        pytest.param(0xC01, "intel", "#GP(0x0)", 0xD01, id="lme-cannot-change-with-paging"),
        pytest.param(0xD03, "intel", "#GP(0x0)", 0xD01, id="reserved-bit-1"),
        pytest.param(0x1D01, "intel", "#GP(0x0)", 0xD01, id="svme-does-not-exist-on-intel"),
        pytest.param(0x1D01, "amd", "not modelled: EFER bits of AMD features", 0xD01, id="svme-on-amd"),
        pytest.param(0xD03, "amd", "#GP(0x0)", 0xD01, id="reserved-bit-1-on-amd"),
        pytest.param(1 << 63 | 0xD01, "amd", "#GP(0x0)", 0xD01, id="reserved-bit-63"),
    ],
)
def test_efer(value: int, profile: str, expected: str, after: int) -> None:
    assert Efer.DEFINED == 0xD01

    result, registers = wrmsr(EFER, value, profile=profile)

    assert (result, registers[3]) == (expected, after)


def test_a_new_gs_base_is_used_at_once() -> None:
    ended = run(WRMSR + "65488b042500000000", rcx=0xC000_0101, rax=KERNEL_DATA & 0xFFFF_FFFF, rdx=KERNEL_DATA >> 32,
                memory={KERNEL_DATA: b"\x55"})  # fmt: skip

    assert ended.register("rax") == 0x55
