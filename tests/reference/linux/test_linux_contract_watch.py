"""Watching a machine step by step: forks, memory that is looked at and not touched, and what a start state has to be."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest
from linux_small_entry import AT, CODE, IRQ, NMI, PERCPU, PIECES, TEXT, USER_GS, broken, jump, machine, verdict
from reference_machine import (
    IST_STACKS,
    KERNEL_CODE,
    KERNEL_DATA,
    KERNEL_READONLY,
    KERNEL_RSP,
    NOT_CANONICAL,
    PAGE,
    UNMAPPED,
    gate,
    interrupt,
    q,
)

from reference.boot import boot
from reference.delivery import Ended
from reference.fork import fork
from reference.linux.contract import Watch, assumes
from reference.linux.entry_code import Stack, StackKind
from reference.linux.look import Look
from reference.memory import store
from reference.run import step


def finish(watch: Watch) -> list[str]:
    """The promises broken by the time that the run has ended."""
    with contextlib.suppress(Ended):
        while watch.step():
            pass
    return broken(watch.violations)


# Watching


def test_a_fork_goes_on_from_every_boundary_to_the_same_verdict() -> None:
    parts = {"change": {"call.orig_rax": "51"}, "handlers": {"do_call": "cc"}}
    m = boot(machine("0f05", **parts))  # type: ignore[arg-type]
    watch = Watch(m, CODE)
    verdicts = []
    with contextlib.suppress(Ended):
        while len(verdicts) < 300:
            verdicts.append(finish(watch.fork(fork(m))))
            watch.step()

    assert 50 < len(verdicts) < 300
    assert {tuple(names) for names in verdicts} == {("orig-rax",)}


def test_a_fork_and_the_original_do_not_see_each_other() -> None:
    m = boot(machine("cc", change={"int3.cld": ""}, rflags=0x602))
    watch = Watch(m, CODE)
    watch.step()
    other = watch.fork(fork(m))

    assert finish(other) == ["direction-flag"]
    assert watch.violations == []
    assert finish(watch) == ["direction-flag"]


def test_two_runs_agree_once_the_same_entries_are_open_over_the_same_memory() -> None:
    """An interrupt that came and went leaves the open entry as it was; a changed word of its caller's stack does not."""
    m = boot(machine("cc", 0))
    plain = Watch(m, CODE)
    for _ in range(20):
        plain.step()
    other_machine = fork(m)
    other = plain.fork(other_machine)

    assert plain.agrees(other)
    store(other_machine, KERNEL_RSP, 8, 0x1234)
    assert not plain.agrees(other)
    while other.step() and len(other_machine.deliveries) == 1 and other_machine.rip != KERNEL_CODE + 1:
        pass
    assert not plain.agrees(other)


def test_a_step_is_the_step_of_the_machine() -> None:
    plain, watched = boot(machine("cc")), boot(machine("cc"))
    watch = Watch(watched, CODE)

    for _ in range(50):
        assert watch.step() == step(plain)
        assert (watched.rip, watched.gpr) == (plain.rip, plain.gpr)


def test_code_at_the_end_of_a_page_is_recognised() -> None:
    """An IRETQ in the last two bytes of a page, and nothing mapped behind."""
    tail = bytes.fromhex(PIECES["irq.restore"] + PIECES["irq.iret"])
    last = TEXT + PAGE - len(tail)
    change = {"irq.restore": jump(AT["irq.restore"], last).hex()}
    parts = {"cpl": 0, "memory": {last: tail}, "events": (interrupt(1, IRQ),)}

    right = verdict("90 90", change=change, **parts)[1]
    wrong = verdict("90 90", change={**change, "irq.call": ""}, **parts)[1]

    assert broken(right) == []
    assert [(violation.promise, violation.rip) for violation in wrong] == [("handler-ran", TEXT + PAGE - 2)]


# Looking


@pytest.mark.parametrize(
    ("linear", "size", "expected"),
    [
        pytest.param(KERNEL_DATA, 16, q(0, 0xFFFF_8880_0002_1800), id="inside-a-page"),
        pytest.param(KERNEL_DATA + PAGE - 4, 8, bytes([1, 2, 3, 4, 5, 6, 7, 8]), id="across-two-pages"),
        pytest.param(UNMAPPED, 8, None, id="not-mapped"),
        pytest.param(KERNEL_READONLY + PAGE - 4, 8, None, id="half-mapped"),
        pytest.param(NOT_CANONICAL, 8, None, id="not-canonical"),
    ],
)
def test_memory_is_read_as_the_kernel_sees_it(linear: int, size: int, expected: bytes | None) -> None:
    m = boot(machine(memory={KERNEL_DATA + PAGE - 4: bytes([1, 2, 3, 4, 5, 6, 7, 8])}))
    before = dict(m.pages)

    assert Look(CODE.kernel_cr3).read(m, linear, size) == expected
    assert m.pages == before


def test_what_is_no_page_of_memory_is_not_there() -> None:
    """The entry of the page is not present, too large, or leads outside memory."""
    for level, change in ((1, (0, 1)), (2, (1 << 7, 0)), (3, (1 << 7, 0)), (1, (1 << 30, 0)), (2, (1 << 30, 0))):
        m = boot(machine(paging={(level, USER_GS): change}))

        assert Look(CODE.kernel_cr3).read(m, USER_GS, 8) is None


# Start states


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        pytest.param({}, "", id="user"),
        pytest.param({"cpl": 0}, "", id="kernel"),
        pytest.param({"gs_base": 7, "fs_base": 9, "rsp": 1, "rip": 2}, "", id="what-a-program-can-set"),
        pytest.param({"gs_base": PERCPU}, "no program", id="negative-gs-without-fsgsbase"),
        pytest.param({"gs_base": PERCPU, "cr4": 1 << 5 | 1 << 16}, "", id="negative-gs-with-fsgsbase"),
        pytest.param({"kernel_gs_base": 0}, "GS base", id="kernel-gs-base"),
        pytest.param({"cpl": 0, "gs_base": 0}, "GS base", id="gs-base-of-the-kernel"),
        pytest.param({"cpl": 0, "rip": AT["call.iret"], "gs_base": 7, "kernel_gs_base": PERCPU, "rsp": 1}, "", id="about-to-leave"),
        pytest.param({"cpl": 0, "rsp": 0x1000}, "stacks", id="kernel-on-no-stack"),
        pytest.param({"cpl": 0, "cr3": CODE.kernel_cr3 | 8}, "CR3", id="kernel-with-another-cr3"),
        pytest.param({"efer": 0xD00}, "SYSCALL", id="no-syscall"),
        pytest.param({"cr0": 0x8004_0033}, "write protection", id="no-write-protection"),
        pytest.param({"idt": {3: gate(AT["int3.orig_rax"], present=False)}}, "vector 3", id="gate-not-present"),
        pytest.param({"idt": {13: gate(0x1234)}}, "vector 13", id="gate-leads-elsewhere"),
        pytest.param({"idtr_limit": 0x2F}, "vector 3", id="idt-too-short"),
        pytest.param({"idtr_base": UNMAPPED}, "vector 2", id="idt-not-mapped"),
        pytest.param({"paging": {(1, IST_STACKS + 2 * PAGE): (0, 1)}}, "nmi is mapped", id="stack-not-mapped"),
        pytest.param({"dr7": 0x401, "dr0": AT["int3.cld"]}, "DR0", id="breakpoint-in-the-entry-code"),
        pytest.param({"dr7": 0x402, "dr0": AT["call.swapgs_in"]}, "", id="breakpoint-on-the-system-call"),
        pytest.param({"dr7": 0x404, "dr1": 0x1234}, "", id="breakpoint-elsewhere"),
        pytest.param({"dr0": AT["int3.cld"]}, "", id="breakpoint-not-enabled"),
    ],
)  # fmt: skip
def test_what_a_start_state_has_to_be(parts: dict[str, object], expected: str) -> None:
    reasons = assumes(machine(**parts), CODE)  # type: ignore[arg-type]

    assert expected in "; ".join(reasons)
    assert bool(reasons) == bool(expected)


def test_a_trampoline_is_no_stack_for_kernel_code() -> None:
    trampoline = Stack(NMI.name, StackKind.ENTRY, NMI.start, NMI.end)
    entry = replace(CODE, stacks=(trampoline,))

    assert "stacks" in assumes(machine(cpl=0, rsp=NMI.end - 8), entry)[0]
