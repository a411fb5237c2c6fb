"""System calls from compatibility mode and the returns to it (SDM Vol. 2B; APM Vol. 3)."""

from __future__ import annotations

import pytest
from reference_compatibility import SPARE_SELECTOR, run32
from reference_machine import (
    CODE,
    DATA,
    GDT_LIMIT,
    KERNEL_CODE,
    KERNEL_CS,
    KERNEL_DS,
    KERNEL_RSP,
    NOT_CANONICAL,
    SPARE,
    USER32_CS,
    USER_CODE,
    USER_DS,
    USER_RSP,
    descriptor,
    frame,
    gate,
    handler,
    image,
    outcome,
    q,
    run,
)

from reference.boot import boot
from reference.image import Observation
from reference.run import step

SYSCALL, SYSRETL, SYSENTER, SYSEXITL, INT80 = "0f05", "0f07", "0f34", "0f35", "cd80"
IF, TF, DF, RF = 1 << 9, 1 << 8, 1 << 10, 1 << 16
THERE = USER_CODE + 0x40
END = {THERE: b"\x40\xcd\xf1"}
"""inc eax in 32-bit code, a prefix in 64-bit code"""
HIGH = 1 << 32


def values(ended: Observation, *names: str) -> list[int]:
    return [ended.register(name) for name in names]


def iretq(rip: int = THERE, cs: int = USER32_CS, rflags: int = 2, rsp: int = USER_RSP, ss: int = USER_DS, **parts: object) -> Observation:
    """IRETQ at CPL 0 on a frame with these words."""
    memory = {KERNEL_RSP: q(rip, cs, rflags, rsp, ss), **END}
    return run("48cf", memory=memory, **{"ds": USER_DS, "es": USER_DS, "gdtr_limit": GDT_LIMIT, **parts})  # type: ignore[arg-type]


def test_syscall_from_compatibility_mode_is_undefined_on_intel() -> None:
    assert outcome(run32(SYSCALL)) == "#UD"


def test_syscall_from_compatibility_mode_enters_at_cstar_on_amd() -> None:
    ended = run32(SYSCALL, profile="amd", rflags=0x8D7 | IF | DF | RF, sfmask=IF | DF)

    assert values(ended, "rip", "rcx", "r11", "rsp") == [handler(0x81) + 2, USER_CODE + 2, 0x8D7 | IF | DF, USER_RSP]
    assert values(ended, "cs", "ss", "rflags") == [KERNEL_CS, KERNEL_DS, 0x8D7]


def test_syscall_needs_efer_sce_on_amd_too() -> None:
    assert outcome(run32(SYSCALL, profile="amd", efer=0xD00)) == "#UD"


def test_sysenter_from_compatibility_mode() -> None:
    ended = run32(SYSENTER, rflags=2 | IF | DF)

    assert values(ended, "rip", "rsp", "cs", "ss", "rflags") == [handler(0x82) + 2, KERNEL_RSP, KERNEL_CS, KERNEL_DS, 2 | DF]
    assert outcome(run32(SYSENTER, profile="amd")) == "#UD"


def test_int_80_from_compatibility_mode_pushes_a_64_bit_frame() -> None:
    ended = run32(INT80, idt={0x80: gate(handler(0x80), dpl=3)})

    assert frame(ended) == (USER_CODE + 2, USER32_CS, 2, USER_RSP, USER_DS)


@pytest.mark.parametrize(("profile", "expected"), [("intel", "#UD"), ("amd", "#GP(0x0)")])
def test_sysret_in_compatibility_mode(profile: str, expected: str) -> None:
    assert outcome(run32(SYSRETL, profile=profile)) == expected


@pytest.mark.parametrize(("profile", "expected"), [("intel", "#GP(0x0)"), ("amd", "#UD")])
def test_sysexit_in_compatibility_mode(profile: str, expected: str) -> None:
    assert outcome(run32(SYSEXITL, profile=profile)) == expected


@pytest.mark.parametrize(
    ("profile", "star", "cs", "ss"),
    [
        pytest.param("intel", 0x0023, 0x23, 0x2B, id="as-usual"),
        pytest.param("intel", 0x0020, 0x23, 0x2B, id="intel-forces-the-rpl"),
        pytest.param("amd", 0x0020, 0x23, 0x28, id="amd-forces-the-rpl-of-cs-only"),
    ],
)
def test_a_32_bit_sysret_returns_to_compatibility_mode_at_ecx(profile: str, star: int, cs: int, ss: int) -> None:
    ended = run(SYSRETL, rcx=THERE, r11=0x8D7, rsp=USER_RSP, star=star << 48, profile=profile, memory=END, rax=5)

    assert values(ended, "rip", "cs", "ss", "rax", "rflags", "rsp") == [THERE + 3, cs, ss, 6, 0x7, USER_RSP]


def test_amds_sysret_keeps_the_hidden_part_of_ss() -> None:
    """The kernel's SS is flat, or null after an interrupt: then the stack of 32-bit code cannot be used."""
    parts = {"rcx": THERE, "r11": 2, "rsp": USER_RSP, "memory": {THERE: b"\x50\xcd\xf1"}, "profile": "amd"}

    assert outcome(run(SYSRETL, **parts)) == "ended"
    assert outcome(run(SYSRETL, ss=0, **parts)) == "not modelled: an unusable stack segment in compatibility mode"
    assert outcome(run(SYSRETL, ss=0, **{**parts, "profile": "intel"})) == "ended"


def test_a_32_bit_return_looks_at_no_upper_half_and_leaves_the_model_with_one() -> None:
    open_ = "not modelled: bits 63:32 of a general register in compatibility mode"

    assert outcome(run(SYSRETL, rcx=NOT_CANONICAL, rsp=USER_RSP)) == open_
    assert outcome(run(SYSEXITL, rcx=NOT_CANONICAL, rdx=THERE)) == open_


def test_sysexit_to_compatibility_mode() -> None:
    ended = run(SYSEXITL, rcx=USER_RSP, rdx=THERE, sysenter_cs=0x10, memory=END, rax=5)

    assert values(ended, "rip", "rsp", "cs", "ss", "rax") == [THERE + 3, USER_RSP, 0x23, 0x2B, 6]


def test_iretq_to_compatibility_mode() -> None:
    ended = iretq(rflags=0x8D7, rax=5)

    assert outcome(ended) == "ended"
    assert values(ended, "rip", "cs", "rsp", "ss", "rax", "rflags") == [THERE + 3, USER32_CS, USER_RSP, USER_DS, 6, 0x7]


@pytest.mark.parametrize(
    ("frame_", "parts", "expected"),
    [
        pytest.param({"rip": 0x50_0000, "cs": SPARE_SELECTOR}, {}, "#GP(0x0)", id="eip-past-the-limit"),
        pytest.param({"rip": HIGH | THERE}, {}, "not modelled: bits 63:32 of RIP on the way to compatibility mode", id="upper-half-of-rip"),
        pytest.param({"rsp": HIGH}, {}, "not modelled: bits 63:32 of a general register in compatibility mode", id="upper-half-of-rsp"),
        pytest.param({}, {"rbx": HIGH}, "not modelled: bits 63:32 of a general register in compatibility mode", id="upper-half-of-rbx"),
        pytest.param({}, {"r9": HIGH}, "ended", id="upper-half-of-r9"),
        pytest.param({"ss": 0}, {}, "#GP(0x0)", id="null-ss"),
        pytest.param({"ss": 0x73}, {"gdt": {0x70: descriptor(DATA, 3)}}, "not modelled: 16-bit stack segment", id="16-bit-stack"),
        pytest.param({"cs": 0x73}, {"gdt": {0x70: descriptor(CODE, 3)}}, "not modelled: 16-bit code segment", id="16-bit-code"),
    ],
)
def test_checks_of_a_return_to_compatibility_mode(frame_: dict[str, int], parts: dict[str, object], expected: str) -> None:
    small = descriptor(CODE, 3, big=True, limit=0x4FFFF, granular=False)

    ended = iretq(**frame_, **{"gdt": {SPARE: small}, **parts})  # type: ignore[arg-type]

    assert outcome(ended) == expected
    if expected.startswith("#"):
        assert frame(ended, error_code=True).rip == KERNEL_CODE


def test_a_64_bit_segment_may_have_a_16_bit_stack() -> None:
    assert outcome(iretq(cs=0x33, ss=0x73, gdt={0x70: descriptor(DATA, 3)})) == "ended"


def test_a_trap_flag_that_sysret_brings_traps_before_the_first_instruction() -> None:
    ended = run(SYSRETL, rcx=THERE, r11=2 | TF, rsp=USER_RSP, memory=END)

    assert (outcome(ended), frame(ended).rip, frame(ended).cs) == ("#DB", THERE, USER32_CS)


def test_the_mode_follows_cs_in_and_out() -> None:
    modes = []
    machine = boot(image("cd80 40 40", 3, cs=USER32_CS, idt={0x80: gate(handler(0x80), dpl=3)}, handlers={0x80: "90 48cf"}))
    while machine.retired < 4:
        modes.append((machine.cpl, machine.compatibility))
        step(machine)

    assert modes == [(3, True), (0, False), (0, False), (3, True)]
