"""SYSCALL, SYSRET, SYSENTER and SYSEXIT (SDM Vol. 2B; APM Vol. 3)."""

from __future__ import annotations

import pytest
from reference_machine import (
    FIRST_KERNEL_PAGE,
    KERNEL_CODE,
    KERNEL_CS,
    KERNEL_DS,
    KERNEL_RSP,
    NOT_CANONICAL,
    USER_CODE,
    USER_CS,
    USER_DATA,
    USER_DS,
    USER_RSP,
    frame,
    handler,
    outcome,
    run,
)

from reference.boot import boot
from reference.image import Observation
from reference.profiles import Efer

SYSCALL, SYSRETQ, SYSRETL, SYSENTER, SYSEXITQ, SYSEXITL = "0f05", "480f07", "0f07", "0f34", "480f35", "0f35"
NO_SCE = 0xD01 & ~Efer.SCE
RF, VM, AC, IF, TF, DF = 1 << 16, 1 << 17, 1 << 18, 1 << 9, 1 << 8, 1 << 10
USER_END = {USER_CODE + 0x40: b"\xcd\xf1"}


def values(ended: Observation, *names: str) -> list[int]:
    return [ended.register(name) for name in names]


def test_syscall_enters_at_lstar_and_keeps_rsp() -> None:
    ended = run(SYSCALL, 3, rflags=0x8D7 | IF | DF, sfmask=IF | DF)

    assert values(ended, "rip", "rcx", "r11", "rsp") == [handler(0x80) + 2, USER_CODE + 2, 0x8D7 | IF | DF, USER_RSP]
    assert values(ended, "cs", "ss", "rflags") == [KERNEL_CS, KERNEL_DS, 0x8D7]


def test_syscall_may_be_executed_in_the_kernel() -> None:
    assert values(run(SYSCALL), "rcx", "cs", "rsp") == [KERNEL_CODE + 2, KERNEL_CS, KERNEL_RSP]


def test_amd_clears_rf_in_r11_and_the_sdm_does_not_say() -> None:
    assert values(run(SYSCALL, 3, rflags=2 | RF, profile="amd"), "r11", "rflags") == [2, 2]
    assert outcome(run(SYSCALL, 3, rflags=2 | RF)).startswith("not modelled: syscall with RF set")


def test_sfmask_clears_any_flag_but_bit_1() -> None:
    assert run(SYSCALL, 3, rflags=0x24_7ED7, sfmask=0xFFFF_FFFF).register("rflags") == 2


@pytest.mark.parametrize(
    ("star", "cs", "ss"),
    [
        pytest.param(0x0010, 0x10, 0x18, id="as-usual"),
        pytest.param(0x0013, 0x10, 0x1B, id="rpl-is-forced-to-0-in-cs-only"),
        pytest.param(0xFFFC, 0xFFFC, 0x0004, id="wraps-at-16-bits"),
    ],
)
def test_selectors_of_syscall_come_from_star(star: int, cs: int, ss: int) -> None:
    ended = run(SYSCALL, 3, star=star << 32 | 0x0023 << 48, limit=1)

    assert values(ended, "cs", "ss") == [cs, ss]


def test_syscall_reads_no_descriptor() -> None:
    assert outcome(run(SYSCALL, 3, gdt={KERNEL_CS: 0, KERNEL_DS: 0}, gdtr_limit=0x5F, handlers={0x80: "480f07"}, limit=2)) == "did-not-end"


@pytest.mark.parametrize("cpl", [0, 3])
@pytest.mark.parametrize("code", [SYSCALL, SYSRETQ, SYSRETL])
def test_syscall_and_sysret_need_efer_sce(code: str, cpl: int) -> None:
    assert outcome(run(code, cpl, efer=NO_SCE, rcx=NOT_CANONICAL)) == "#UD"


def test_sysret_returns_to_rcx_and_keeps_rsp() -> None:
    ended = run(SYSRETQ, rcx=USER_CODE + 0x40, r11=0x8D7 | IF | AC, memory=USER_END)

    assert outcome(ended) == "ended"
    assert values(ended, "rip", "cs", "ss", "rsp", "rflags") == [USER_CODE + 0x42, USER_CS, USER_DS, KERNEL_RSP, 0x8D7 | IF | AC]


@pytest.mark.parametrize(
    ("r11", "after"),
    [
        pytest.param(0xFFFF_FFFF_FFFF_FFFF & ~TF, 0x3C_7FD7 & ~TF, id="reserved-bits-rf-and-vm-become-0"),
        pytest.param(0, 2, id="bit-1-stays-set"),
    ],
)
def test_sysret_takes_the_flags_of_r11(r11: int, after: int) -> None:
    assert run(SYSRETQ, rcx=USER_CODE + 0x40, r11=r11, memory=USER_END).register("rflags") == after


def test_sysret_needs_cpl_0() -> None:
    assert outcome(run(SYSRETQ, 3, rcx=NOT_CANONICAL)) == "#GP(0x0)"


@pytest.mark.parametrize("rcx", [NOT_CANONICAL, FIRST_KERNEL_PAGE - 1, 1 << 63])
def test_sysret_to_a_non_canonical_address_faults_in_the_kernel_on_intel_and_in_user_mode_on_amd(rcx: int) -> None:
    intel, amd = (run(SYSRETQ, rcx=rcx, r11=IF, profile=profile) for profile in ("intel", "amd"))

    assert [outcome(intel), outcome(amd)] == ["#GP(0x0)", "#GP(0x0)"]
    assert (frame(intel, error_code=True).rip, frame(intel, error_code=True).cs) == (KERNEL_CODE, KERNEL_CS)
    assert (frame(amd, error_code=True).rip, frame(amd, error_code=True).cs) == (rcx, USER_CS)


@pytest.mark.parametrize(
    ("profile", "star", "cs", "ss"),
    [
        pytest.param("intel", 0x0023, 0x33, 0x2B, id="as-usual"),
        pytest.param("intel", 0x0020, 0x33, 0x2B, id="intel-forces-the-rpl"),
        pytest.param("amd", 0x0020, 0x33, 0x28, id="amd-forces-the-rpl-of-cs-only"),
        pytest.param("intel", 0xFFF3, 0x0003, 0xFFFB, id="wraps-at-16-bits"),
    ],
)
def test_selectors_of_sysret_come_from_star(profile: str, star: int, cs: int, ss: int) -> None:
    ended = run(SYSRETQ, rcx=USER_CODE + 0x40, star=star << 48, profile=profile, limit=1)

    assert values(ended, "cs", "ss") == [cs, ss]


def test_sysret_defines_the_flags() -> None:
    assert run("21c0" + SYSRETQ, rcx=USER_CODE + 0x40, memory=USER_END).undefined.rflags == 0


def test_sysenter_enters_at_its_msrs_and_clears_if() -> None:
    ended = run(SYSENTER, 3, rflags=2 | IF | DF | AC)

    assert values(ended, "rip", "rsp", "cs", "ss", "rflags") == [handler(0x82) + 2, KERNEL_RSP, KERNEL_CS, KERNEL_DS, 2 | DF | AC]


@pytest.mark.parametrize(("sysenter_cs", "cs", "ss"), [(0x13, 0x10, 0x18), (0xFFFF_0010, 0x10, 0x18), (0xFFFC, 0xFFFC, 0x4)])
def test_selectors_of_sysenter(sysenter_cs: int, cs: int, ss: int) -> None:
    assert values(run(SYSENTER, 3, sysenter_cs=sysenter_cs, limit=1), "cs", "ss") == [cs, ss]


@pytest.mark.parametrize("code", [SYSENTER, SYSEXITQ, SYSEXITL])
@pytest.mark.parametrize("sysenter_cs", [0, 3, 0x1_0000])
def test_a_null_sysenter_cs_faults(code: str, sysenter_cs: int) -> None:
    assert outcome(run(code, sysenter_cs=sysenter_cs)) == "#GP(0x0)"


def test_sysexit_returns_to_rdx_on_rcx() -> None:
    ended = run(SYSEXITQ, rcx=USER_RSP, rdx=USER_CODE + 0x40, rflags=2 | IF, memory=USER_END)

    assert values(ended, "rip", "rsp", "cs", "ss", "rflags") == [USER_CODE + 0x42, USER_RSP, USER_CS, 0x3B, 2 | IF]


@pytest.mark.parametrize(("sysenter_cs", "cs", "ss"), [(0x13, 0x33, 0x3B), (0x11, 0x33, 0x3B), (0xFFF0, 0x13, 0x1B)])
def test_selectors_of_sysexit(sysenter_cs: int, cs: int, ss: int) -> None:
    ended = run(SYSEXITQ, rcx=USER_RSP, rdx=USER_CODE + 0x40, sysenter_cs=sysenter_cs, limit=1)

    assert values(ended, "cs", "ss") == [cs, ss]


@pytest.mark.parametrize(
    ("cpl", "rcx", "rdx"),
    [
        pytest.param(3, USER_RSP, USER_CODE, id="cpl-3"),
        pytest.param(0, NOT_CANONICAL, USER_CODE, id="rcx-not-canonical"),
        pytest.param(0, USER_RSP, NOT_CANONICAL, id="rdx-not-canonical"),
    ],
)
def test_sysexit_faults(cpl: int, rcx: int, rdx: int) -> None:
    assert outcome(run(SYSEXITQ, cpl, rcx=rcx, rdx=rdx)) == "#GP(0x0)"


@pytest.mark.parametrize("code", [SYSENTER, SYSEXITQ, SYSEXITL])
@pytest.mark.parametrize("cpl", [0, 3])
def test_sysenter_and_sysexit_do_not_exist_in_amds_long_mode(code: str, cpl: int) -> None:
    assert outcome(run(code, cpl, profile="amd", sysenter_cs=0)) == "#UD"


def test_privileges_change_with_the_segments() -> None:
    entered = run(SYSCALL, 3, handlers={0x80: "488b00"}, rax=KERNEL_RSP, memory={handler(0x80) + 3: b"\xcd\xf1"})
    left = run(SYSRETQ, rcx=USER_CODE + 0x40, rax=KERNEL_RSP, memory={USER_CODE + 0x40: b"\x8a\x00\xcd\xf1"})
    exited = run(SYSEXITQ, rcx=USER_RSP, rdx=USER_CODE + 0x40, rax=KERNEL_RSP, memory={USER_CODE + 0x40: b"\x8a\x00\xcd\xf1"})

    assert [outcome(ended) for ended in (entered, left, exited)] == ["ended", "#PF(0x5)", "#PF(0x5)"]


def test_leaving_the_kernel_brings_back_the_alignment_checks() -> None:
    code = {USER_CODE + 0x40: b"\x8b\x00\xcd\xf1"}

    assert outcome(run(SYSRETQ, rcx=USER_CODE + 0x40, r11=AC, rax=USER_DATA + 1, memory=code)) == "#AC(0x0)"


def test_boot_gives_the_builders_machine_the_selectors_of_its_star() -> None:
    from reference_machine import image

    machine = boot(image(SYSCALL, 3))
    assert (machine.star >> 32 & 0xFFFF, machine.cpl) == (KERNEL_CS, 3)
