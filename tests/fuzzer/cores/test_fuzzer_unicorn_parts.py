"""A core with one planted mistake: a subclass overrides one rule of the adapter, and one small case shows it."""

from __future__ import annotations

import pytest
from fuzzer_builders import entered, interrupt, nmi, words_at
from fuzzer_machines import machine, observe

from fuzzer.cores.unicorn.arrivals import Arrivals
from fuzzer.cores.unicorn.core import UnicornCore
from fuzzer.cores.unicorn.delivery import Arrival, Doorman
from fuzzer.cores.unicorn.fast_calls import FastCalls
from fuzzer.cores.unicorn.machine import Parts
from fuzzer.targets import layout, tables
from fuzzer.targets.target import patch
from reference.image import End, Image

IF, RF, TF = 1 << 9, 1 << 16, 1 << 8
TOP = layout.THREAD_STACK.end - 0x100


class ShiftedError(Doorman):
    def selector_error(self, selector: int, ext: int) -> int:
        return super().selector_error(selector, ext) >> 3


class ShiftedPush(Doorman):
    def pushed_error(self, arrival: Arrival) -> int | None:
        error_code = super().pushed_error(arrival)
        return None if error_code is None else error_code >> 3


class ShiftedGateError(Doorman):
    def gate_error(self, vector: int, ext: int) -> int:
        return vector


class Unaligned(Doorman):
    def aligned(self, rsp: int) -> int:
        return rsp


class WrongSlot(Doorman):
    def stack_slot(self, ist: int, new_cpl: int) -> int | None:
        return super().stack_slot(ist and ist + 1, new_cpl)


class AlwaysRsp0(Doorman):
    def stack_slot(self, ist: int, new_cpl: int) -> int | None:
        return super().stack_slot(ist, new_cpl) or 4


class NeverRsp0(Doorman):
    def stack_slot(self, ist: int, new_cpl: int) -> int | None:
        return super().stack_slot(ist, self.cpl)


class InterruptsStayOn(Doorman):
    def cleared_flags(self, trap_gate: bool) -> int:
        return super().cleared_flags(trap_gate=True)


class TrapStaysOn(Doorman):
    def cleared_flags(self, trap_gate: bool) -> int:
        return super().cleared_flags(trap_gate) & ~TF


class NoResume(Doorman):
    def saved_flags(self, arrival: Arrival) -> int:
        return super().saved_flags(arrival) & ~RF


class NoShadow(Arrivals):
    def shadow_holds_interrupts(self) -> bool:
        return False


class NoStackShadow(Arrivals):
    def shadow_holds_nmi(self) -> bool:
        return False


class NoLatch(Arrivals):
    def block_nmi(self) -> None:
        pass


class StuckLatch(Arrivals):
    def unblock_nmi(self) -> None:
        pass


class NoMask(FastCalls):
    def masked_flags(self, rflags: int, mask: int) -> int:
        return super().masked_flags(rflags, 0)


def kernel(code: str, *events: object, **registers: int) -> Image:
    return machine(code, "kernel", events=events, **registers)  # type: ignore[arg-type]


NO_CODE = patch(layout.IDT, 0x30 * 16, tables.gate(layout.KERNEL_TEXT.start, selector=0x78, dpl=3, present=False))
LONGER = patch(layout.KERNEL_TEXT, 2 * 16, bytes.fromhex("90 48cf"))
"""A handler of NMIs that lets one arrive before its IRETQ."""
DATA_CODE = patch(layout.IDT, 0x30 * 16, tables.gate(layout.KERNEL_TEXT.start, selector=layout.KERNEL_DS, dpl=3))

MISTAKES = {
    "selector-error": (Parts(doorman=ShiftedError), machine("cd30", memory=[DATA_CODE])),
    "pushed-error": (Parts(doorman=ShiftedPush), machine("8ed8", rax=0xFB)),
    "gate-error": (Parts(doorman=ShiftedGateError), machine("cd30", memory=[NO_CODE])),
    "alignment": (Parts(doorman=Unaligned), kernel("0f0b", rsp=TOP + 8)),
    "ist-slot": (Parts(doorman=WrongSlot), kernel("90 90", nmi(1))),
    "rsp0-without-a-change": (Parts(doorman=AlwaysRsp0), kernel("0f0b", rsp=TOP)),
    "no-rsp0": (Parts(doorman=NeverRsp0), machine("0f0b", rsp=layout.USER_STACK.end)),
    "if-stays": (Parts(doorman=InterruptsStayOn), kernel("0f0b", rflags=IF | 2)),
    "tf-stays": (Parts(doorman=TrapStaysOn), kernel("90", rflags=TF | 2)),
    "rf-missing": (Parts(doorman=NoResume), kernel("0f0b")),
    "sti-shadow": (Parts(arrivals=NoShadow), kernel("fb 90 90", interrupt(0), rflags=2)),
    "mov-ss-shadow": (Parts(arrivals=NoStackShadow), kernel("8ed0 90 90", nmi(1), rax=layout.KERNEL_DS)),
    "nmi-latch-not-kept": (Parts(arrivals=NoLatch), machine("90 90", "kernel", events=[nmi(1), nmi(2)], memory=[LONGER])),
    "nmi-latch-stuck": (Parts(arrivals=StuckLatch), kernel("90 90 90", nmi(1), nmi(3))),
    "sfmask": (Parts(fast_calls=NoMask), machine("0f05", rflags=IF | 2, sfmask=IF, lstar=layout.KERNEL_TEXT.start)),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_one_overridden_rule_shows_in_one_case(core: UnicornCore, name: str) -> None:
    parts, image = MISTAKES[name]

    right, wrong = observe(core, image), observe(UnicornCore(parts), image)

    assert (right.end, entered(right), right.registers, right.memory) != (wrong.end, entered(wrong), wrong.registers, wrong.memory)


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_stays_in_its_core(core: UnicornCore, name: str) -> None:
    _, image = MISTAKES[name]
    before = observe(UnicornCore(), image)

    assert observe(core, image) == before


def test_a_core_without_alignment_pushes_where_rsp_stands() -> None:
    image = kernel("0f0b", rsp=TOP + 8)

    seen = observe(UnicornCore(Parts(doorman=Unaligned)), image)

    assert words_at(image, seen, layout.THREAD_STACK, TOP + 8 - 40, 2) == (layout.KERNEL_CODE.start, layout.KERNEL_CS)


def test_a_core_whose_latch_is_stuck_never_takes_the_second_nmi() -> None:
    seen = observe(UnicornCore(Parts(arrivals=StuckLatch)), kernel("90 90 90", nmi(1), nmi(3)))

    assert (seen.end, [entry[:2] for entry in entered(seen)]) == (End.ENDED, [(1, 2)])
