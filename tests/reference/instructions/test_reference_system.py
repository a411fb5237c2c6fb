"""SWAPGS, FSGSBASE, control and debug registers, and a few that only exist in the kernel (SDM Vol. 2A to 2D, Vol. 3A, 2.5)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from reference_machine import (
    AVAILABLE_TSS,
    IDT,
    KERNEL_CODE,
    KERNEL_DATA,
    NOT_CANONICAL,
    NX,
    SPARE,
    UNMAPPED,
    USER_DATA,
    gate,
    handler,
    outcome,
    peek,
    q,
    run,
    system,
)

from reference.profiles import PROFILES, Cr0, Cr4

ONES = 0xFFFF_FFFF_FFFF_FFFF
CR0, CR4, CR3 = 0x8005_0033, 0x60, 0x20_0000
FSGSBASE = {"cr4": CR4 | Cr4.FSGSBASE}


def test_swapgs_exchanges_the_two_bases() -> None:
    ended = run("0f01f8", gs_base=0x1111, kernel_gs_base=0x2222)

    assert [ended.register("gs_base"), ended.register("kernel_gs_base")] == [0x2222, 0x1111]


def test_swapgs_takes_effect_on_the_next_access() -> None:
    assert run("0f01f8 65488b00", kernel_gs_base=KERNEL_DATA, memory={KERNEL_DATA: b"\x55"}).register("rax") == 0x55


TABLE = {"rax": USER_DATA, "memory": {USER_DATA: b"\xff\x0f" + q(IDT)}}
AVAILABLE = {"rax": SPARE, "gdt": {SPARE: system(AVAILABLE_TSS, KERNEL_DATA, 0x67)}}


@pytest.mark.parametrize(
    ("code", "parts"),
    [
        pytest.param("0f01f8", {}, id="swapgs"),
        pytest.param("f4", {}, id="hlt"),
        pytest.param("0f32", {"rcx": 0xC000_0102}, id="rdmsr"),
        pytest.param("0f30", {"rcx": 0xC000_0102}, id="wrmsr"),
        pytest.param("0f20c0", {}, id="mov-from-cr0"),
        pytest.param("0f22c0", {"rax": CR0}, id="mov-to-cr0"),
        pytest.param("440f20c0", {}, id="mov-from-cr8"),
        pytest.param("440f22c0", {}, id="mov-to-cr8"),
        pytest.param("0f21c0", {}, id="mov-from-dr0"),
        pytest.param("0f23f8", {}, id="mov-to-dr7"),
        pytest.param("0f0138", {}, id="invlpg"),
        pytest.param("0f0110", TABLE, id="lgdt"),
        pytest.param("0f0118", TABLE, id="lidt"),
        pytest.param("0f00d0", {}, id="lldt"),
        pytest.param("0f00d8", AVAILABLE, id="ltr"),
    ],
)
def test_privileged_instructions_need_cpl_0(code: str, parts: dict[str, object]) -> None:
    assert not run(code, **parts).deliveries
    assert outcome(run(code, 3, **parts)) == "#GP(0x0)"


@pytest.mark.parametrize("code", ["0f32", "0f30", "0f21c0", "0f23f8", "0f0110", "0f0118", "0f00d0", "0f00d8"])
def test_the_privilege_level_is_checked_before_the_operands(code: str) -> None:
    assert outcome(run(code, 3, rax=0x100 | NOT_CANONICAL, rcx=0x10, dr7=0x2400)) == "#GP(0x0)"


@pytest.mark.parametrize("cpl", [0, 3])
@pytest.mark.parametrize(("code", "register"), [("f3480faec0", "fs_base"), ("f3480faec8", "gs_base")])
def test_rdfsbase_and_rdgsbase(code: str, register: str, cpl: int) -> None:
    assert run(code, cpl, **FSGSBASE, **{register: 0xFFFF_8000_1234_5678}).register("rax") == 0xFFFF_8000_1234_5678
    assert run(code.replace("48", ""), cpl, **FSGSBASE, **{register: 0xFFFF_8000_1234_5678}).register("rax") == 0x1234_5678


@pytest.mark.parametrize("cpl", [0, 3])
@pytest.mark.parametrize(("code", "register"), [("f3480faed0", "fs_base"), ("f3480faed8", "gs_base")])
def test_wrfsbase_and_wrgsbase(code: str, register: str, cpl: int) -> None:
    wide = run(code, cpl, rax=0xFFFF_8000_1234_5678, **FSGSBASE)
    narrow = run(code.replace("48", ""), cpl, rax=0x0001_0000_1234_5678, **FSGSBASE, **{register: ONES})

    assert [wide.register(register), narrow.register(register)] == [0xFFFF_8000_1234_5678, 0x1234_5678]
    assert outcome(run(code, cpl, rax=NOT_CANONICAL, **FSGSBASE)) == "#GP(0x0)"


@pytest.mark.parametrize("code", ["f3480faec0", "f3480faec8", "f3480faed0", "f3480faed8"])
def test_fsgsbase_needs_the_processor_and_cr4(code: str) -> None:
    without = replace(PROFILES["intel"], fsgsbase=False)

    assert outcome(run(code, rax=NOT_CANONICAL)) == "#UD"
    assert outcome(run(code, profile=without, **FSGSBASE)) == "#UD"


@pytest.mark.parametrize(
    ("code", "register"), [("0f20c0", "cr0"), ("0f20d0", "cr2"), ("0f20d8", "cr3"), ("0f20e0", "cr4"), ("440f20c0", "cr8")]
)
def test_reading_a_control_register(code: str, register: str) -> None:
    ended = run(code, cr2=0x1234_5678_9ABC, cr8=7)

    assert ended.register("rax") == ended.register(register)
    assert ended.register("rax") == {"cr0": CR0, "cr2": 0x1234_5678_9ABC, "cr3": CR3, "cr4": CR4, "cr8": 7}[register]


MISSING = "not modelled: physical address outside memory"
OUTSIDE = "not modelled: CR4 bit of a feature outside the model"
WRITES = {
    "cr0": (
        "0f22c0",
        [
            (CR0 & ~Cr0.WP, "ended", None),
            (CR0 | Cr0.CD | Cr0.NW, "ended", None),
            (CR0 & ~Cr0.ET | 1 << 10, "ended", CR0),
            (CR0 | 1 << 32, "#GP(0x0)", None),
            (CR0 & ~Cr0.PE, "#GP(0x0)", None),
            (CR0 & ~Cr0.PG, "#GP(0x0)", None),
            (CR0 & ~Cr0.PG & ~Cr0.PE, "#GP(0x0)", None),
            (CR0 | Cr0.NW, "#GP(0x0)", None),
        ],
    ),
    "cr2": ("0f22d0", [(ONES, "ended", None)]),
    "cr3": (
        "0f22d8",
        [
            (CR3 | 0x18, "ended", None),
            (CR3 | 1 << 40, "#GP(0x0)", None),
            (CR3 | NX, "#GP(0x0)", None),
            (CR3 | 1 << 39, MISSING, None),
        ],
    ),
    "cr4": (
        "0f22e0",
        [
            (CR4 | Cr4.SMAP | Cr4.SMEP | Cr4.FSGSBASE | Cr4.PGE, "ended", None),
            (CR4 & ~Cr4.PAE, "#GP(0x0)", None),
            (CR4 | Cr4.LA57, "#GP(0x0)", None),
            (CR4 | 1 << 15, "#GP(0x0)", None),
            (CR4 | 1 << 19, "#GP(0x0)", None),
            (CR4 | 1 << 32, "#GP(0x0)", None),
            (CR4 | Cr4.PCIDE, OUTSIDE, None),
            (CR4 | Cr4.UMIP, OUTSIDE, None),
        ],
    ),
    "cr8": ("440f22c0", [(0xF, "ended", None), (0x10, "#GP(0x0)", None), (1 << 63, "#GP(0x0)", None)]),
}


@pytest.mark.parametrize(
    ("register", "code", "value", "expected", "after"),
    [
        pytest.param(register, code, value, expected, after, id=f"{register}={value:#x}")
        for register, (code, cases) in WRITES.items()
        for value, expected, after in cases
    ],
)
def test_writing_a_control_register(register: str, code: str, value: int, expected: str, after: int | None) -> None:
    ended = run(code, rax=value)

    assert outcome(ended) == expected
    if expected == "ended":
        assert ended.register(register) == (value if after is None else after)


def test_a_feature_the_processor_has_not_cannot_be_enabled_in_the_model() -> None:
    assert outcome(run("0f22e0", rax=CR4 | Cr4.SMAP, profile="intel-2012")) == OUTSIDE
    assert outcome(run("0f22e0", rax=CR4 | Cr4.SMEP | Cr4.FSGSBASE, profile="intel-2012")) == "ended"


def test_a_new_cr3_is_used_for_the_next_fetch() -> None:
    # CR3 on the page tables' own second level: nothing is mapped where the code is.
    ended = run("0f22d8 90", rax=0x20_7000, idt={8: gate(handler(8))})

    assert ended.end in ("shutdown", "not-modelled")


@pytest.mark.parametrize("number", range(4))
def test_address_breakpoint_registers_hold_any_value(number: int) -> None:
    ended = run(f"0f23{0xC0 | number << 3:02x} 0f21{0xC1 | number << 3:02x}", rax=1 << 63 | 5)

    assert [ended.register(f"dr{number}"), ended.register("rcx")] == [1 << 63 | 5, 1 << 63 | 5]


@pytest.mark.parametrize(
    ("code", "register", "value", "after"),
    [
        pytest.param("0f23f0", "dr6", 0xFFFF_FFFF, 0xFFFF_EFFF, id="dr6-bit-12-is-0"),
        pytest.param("0f23f0", "dr6", 0, 0xFFFF_0FF0, id="dr6-fixed-ones"),
        pytest.param("0f23f8", "dr7", 0xFFFF_FF00, 0xFFFF_2700, id="dr7-reserved-zeros"),
        pytest.param("0f23f8", "dr7", 0, 0x400, id="dr7-bit-10-is-1"),
        pytest.param("0f23e0", "dr6", 1, 0xFFFF_0FF1, id="dr4-means-dr6"),
        pytest.param("0f23e8", "dr7", 0x300, 0x700, id="dr5-means-dr7"),
    ],
)
def test_fixed_bits_of_the_debug_registers(code: str, register: str, value: int, after: int) -> None:
    assert run(code, rax=value).register(register) == after


@pytest.mark.parametrize(("code", "value"), [("0f21f0", 0xFFFF_4FF1), ("0f21e0", 0xFFFF_4FF1), ("0f21f8", 0x400), ("0f21e8", 0x400)])
def test_reading_the_debug_status_and_control_registers(code: str, value: int) -> None:
    assert run(code, dr6=0xFFFF_4FF1).register("rax") == value


@pytest.mark.parametrize("code", ["0f23f0", "0f23f8", "0f23e0", "0f23e8"])
def test_the_upper_half_of_dr6_and_dr7_must_be_0(code: str) -> None:
    assert outcome(run(code, rax=1 << 32)) == "#GP(0x0)"


@pytest.mark.parametrize("code", ["0f21e0", "0f21e8", "0f23e0", "0f23e8"])
def test_dr4_and_dr5_do_not_exist_with_cr4_de(code: str) -> None:
    assert outcome(run(code, cr4=CR4 | Cr4.DE, dr7=0x2400)) == "#UD"


def test_a_breakpoint_set_by_mov_is_armed_at_once() -> None:
    # mov dr7, rax; mov [rcx], al
    ended = run("0f23f8 8801", rax=0x1_0402, rcx=KERNEL_DATA, dr0=KERNEL_DATA)

    assert (outcome(ended), ended.deliveries[0].rip) == ("#DB", KERNEL_CODE + 5)


@pytest.mark.parametrize(
    ("code", "after"),
    [
        pytest.param("0f01e0", CR0, id="32-bit"),
        pytest.param("480f01e0", CR0, id="64-bit"),
        pytest.param("660f01e0", 0xFFFF_FFFF_FFFF_0033, id="16-bit"),
    ],
)
@pytest.mark.parametrize("cpl", [0, 3])
def test_smsw(code: str, after: int, cpl: int) -> None:
    assert run(code, cpl, rax=ONES).register("rax") == after


def test_smsw_stores_16_bits_to_memory() -> None:
    for code in ("0f0120", "480f0120"):
        assert peek(run(code, rax=KERNEL_DATA, memory={KERNEL_DATA: b"\xff" * 8}), KERNEL_DATA) == 0xFFFF_FFFF_FFFF_0033


@pytest.mark.parametrize("address", [UNMAPPED, NOT_CANONICAL])
def test_invlpg_accesses_nothing(address: int) -> None:
    assert outcome(run("0f0138", rax=address)) == "ended"


HAS_INVPCID = replace(PROFILES["intel"], invpcid=True)


@pytest.mark.parametrize(
    ("kind", "descriptor", "expected"),
    [
        pytest.param(0, q(0, KERNEL_DATA), "ended", id="one-address"),
        pytest.param(0, q(0, NOT_CANONICAL), "#GP(0x0)", id="address-not-canonical"),
        pytest.param(1, q(0, NOT_CANONICAL), "ended", id="only-type-0-has-an-address"),
        pytest.param(0, q(1, 0), "#GP(0x0)", id="pcid-without-pcide"),
        pytest.param(1, q(1, 0), "#GP(0x0)", id="pcid-without-pcide-type-1"),
        pytest.param(2, q(1, 0), "ended", id="type-2-has-no-pcid"),
        pytest.param(3, q(0, 0), "ended", id="type-3"),
        pytest.param(4, q(0, 0), "#GP(0x0)", id="no-such-type"),
        pytest.param(1 << 32, q(0, 0), "#GP(0x0)", id="the-type-has-64-bits"),
        pytest.param(0, q(1 << 12, 0), "#GP(0x0)", id="reserved-bits"),
        pytest.param(3, q(1 << 63, 0), "#GP(0x0)", id="reserved-bits-whatever-the-type"),
    ],
)
def test_invpcid(kind: int, descriptor: bytes, expected: str) -> None:
    assert outcome(run("660f388201", rax=kind, rcx=KERNEL_DATA, memory={KERNEL_DATA: descriptor}, profile=HAS_INVPCID)) == expected


def test_invpcid_needs_the_processor_and_cpl_0() -> None:
    assert outcome(run("660f388201", 3)) == "#UD"
    assert outcome(run("660f388201", 3, profile=HAS_INVPCID)) == "#GP(0x0)"


@pytest.mark.parametrize(("profile", "name"), [("intel", b"GenuineIntel"), ("amd", b"AuthenticAMD")])
def test_cpuid_leaf_0_names_the_vendor(profile: str, name: bytes) -> None:
    ended = run("0fa2", 3, rax=1 << 32, rbx=ONES, rcx=ONES, rdx=ONES, profile=profile)

    words = [ended.register(register) for register in ("rbx", "rdx", "rcx")]
    assert b"".join(word.to_bytes(8, "little")[:4] for word in words) == name
    assert (max(words) >> 32, ended.register("rax")) == (0, PROFILES[profile].cpuid_max_leaf)


@pytest.mark.parametrize(("code", "expected"), [("f34190", "not modelled: pause with REX.B"), ("f34890", "ended")])
def test_what_f3_makes_of_xchg_with_r8_is_open(code: str, expected: str) -> None:
    assert outcome(run(code)) == expected


@pytest.mark.parametrize("code", ["90", "6690", "0f1f00", "f390", "f30f1efa", "0faee8", "0faef0", "0faef8"])
def test_instructions_that_do_nothing(code: str) -> None:
    ended = run(code, rax=NOT_CANONICAL, rflags=0x8D7)

    assert (outcome(ended), ended.register("rflags"), ended.memory) == ("ended", 0x8D7, {})


def test_a_66_prefix_before_rdfsbase_is_open() -> None:
    assert outcome(run("66 f30faec0", cr4=0x1_0020)).startswith("not modelled: ")
