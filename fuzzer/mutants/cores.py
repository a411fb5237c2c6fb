"""Planted bugs in a core: Unicorn as it is, delivering events with one rule of the manual broken."""

from __future__ import annotations

from functools import partial

from fuzzer.cores.unicorn.arrivals import Arrivals
from fuzzer.cores.unicorn.core import UnicornCore
from fuzzer.cores.unicorn.delivery import IF, NT, RF, TF, Arrival, Doorman
from fuzzer.cores.unicorn.fast_calls import FastCalls
from fuzzer.cores.unicorn.machine import Parts
from fuzzer.mutants import witness
from fuzzer.mutants.code import Place
from fuzzer.mutants.mutant import Kind, Mutant
from fuzzer.mutants.witness import Witness
from reference.bits import AC, FIXED
from reference.image import EventKind

_TSS_RSP0, _TSS_RSP1 = 4, 12


class FrameNotAligned(Doorman):
    """Pushes the frame where RSP happens to be."""

    def aligned(self, rsp: int) -> int:
        """As it is."""
        return rsp


class SavesAlignedRsp(Doorman):
    """Pushes the RSP that it has aligned already."""

    def frame(self, arrival: Arrival) -> list[int]:
        """With RSP a multiple of 16."""
        ss, rsp, *rest = super().frame(arrival)
        return [ss, rsp & ~15, *rest]


class GateErrorTimes16(Doorman):
    """Takes the index of an error code for an offset into the IDT."""

    def gate_error(self, vector: int, ext: int) -> int:
        """The vector times the size of a gate."""
        return vector * 16 + 2 + ext


class NoIst(Doorman):
    """Knows RSP0 only."""

    def stack_slot(self, ist: int, new_cpl: int) -> int | None:
        """As if every gate had IST 0."""
        return super().stack_slot(0, new_cpl)


class IstFromUserOnly(Doorman):
    """Changes stacks only together with the privilege level."""

    def stack_slot(self, ist: int, new_cpl: int) -> int | None:
        """No IST from kernel mode."""
        return super().stack_slot(ist if new_cpl != self.cpl else 0, new_cpl)


class AlwaysRsp0(Doorman):
    """Loads RSP0 from kernel mode too."""

    def stack_slot(self, ist: int, new_cpl: int) -> int | None:
        """RSP0 wherever there is no IST."""
        return super().stack_slot(ist, new_cpl) or _TSS_RSP0


class Rsp1ForRsp0(Doorman):
    """Is off by one in the TSS."""

    def stack_slot(self, ist: int, new_cpl: int) -> int | None:
        """The next slot."""
        slot = super().stack_slot(ist, new_cpl)
        return _TSS_RSP1 if slot == _TSS_RSP0 else slot


class KeepsInterruptFlag(Doorman):
    """Treats an interrupt gate as a trap gate."""

    def cleared_flags(self, trap_gate: bool) -> int:
        """Without IF."""
        return super().cleared_flags(trap_gate) & ~IF


class KeepsTrapFlag(Doorman):
    """Single-steps into the handler."""

    def cleared_flags(self, trap_gate: bool) -> int:
        """Without TF."""
        return super().cleared_flags(trap_gate) & ~TF


class KeepsNestedTask(Doorman):
    """Lets NT through to the handler, whose IRETQ faults on it."""

    def cleared_flags(self, trap_gate: bool) -> int:
        """Without NT."""
        return super().cleared_flags(trap_gate) & ~NT


class ClearsAlignmentCheck(Doorman):
    """Clears AC, as no gate does."""

    def cleared_flags(self, trap_gate: bool) -> int:
        """And AC."""
        return super().cleared_flags(trap_gate) | AC


class NeverSavesResume(Doorman):
    """Forgets RF in the frame of a fault."""

    def saved_flags(self, arrival: Arrival) -> int:
        """RFLAGS as they are."""
        return self.rflags


class SavesResumeOfTraps(Doorman):
    """Sets RF in the frame of a trap too."""

    def saved_flags(self, arrival: Arrival) -> int:
        """RFLAGS with RF, whatever it is."""
        return self.rflags | RF


class NotPresentWithoutCode(Doorman):
    """Pushes no error code for #NP."""

    def pushed_error(self, arrival: Arrival) -> int | None:
        """None for vector 11."""
        return None if arrival.vector == 11 else super().pushed_error(arrival)


class NoShadow(Arrivals):
    """Takes an interrupt right behind STI."""

    def shadow_holds_interrupts(self) -> bool:
        """Never."""
        return False


class NoLatch(Arrivals):
    """Takes an NMI inside an NMI."""

    def block_nmi(self) -> None:
        """Nothing is blocked."""


class LatchStays(Arrivals):
    """Keeps NMIs blocked for ever."""

    def unblock_nmi(self) -> None:
        """IRET opens nothing."""


class MaskIgnored(FastCalls):
    """Keeps RFLAGS over SYSCALL."""

    def masked_flags(self, rflags: int, mask: int) -> int:
        """As if SFMASK were 0."""
        return super().masked_flags(rflags, 0)


class MaskOf16Bits(FastCalls):
    """Masks FLAGS, not RFLAGS: AC survives."""

    def masked_flags(self, rflags: int, mask: int) -> int:
        """As if SFMASK had 16 bits."""
        return super().masked_flags(rflags, mask & 0xFFFF)


def _mutant(name: str, story: str, source: str, seen: Witness, parts: Parts) -> Mutant:
    return Mutant(name, Kind.CORE, story, source, seen, core=partial(UnicornCore, parts))


def _door(name: str, source: str, seen: Witness, doorman: type[Doorman]) -> Mutant:
    return _mutant(name, _story(doorman), source, seen, Parts(doorman=doorman))


def _latch(name: str, source: str, seen: Witness, arrivals: type[Arrivals]) -> Mutant:
    return _mutant(name, _story(arrivals), source, seen, Parts(arrivals=arrivals))


def _call(name: str, source: str, seen: Witness, fast_calls: type[FastCalls]) -> Mutant:
    return _mutant(name, _story(fast_calls), source, seen, Parts(fast_calls=fast_calls))


def _story(wrong: type) -> str:
    """What the class says about itself."""
    return (wrong.__doc__ or "").rstrip(".")


_PUSHED = witness.Arrival(EventKind.INTERRUPT, Place("kernel_code", "cli"))
"""RSP is a multiple of 8 there, and not of 16."""
_BEHIND_STI = witness.Arrival(EventKind.INTERRUPT, Place("kernel_code", "pop rcx"))
_NMI = witness.Arrival(EventKind.NMI, 1)
_NMI_IN_NMI = witness.Arrival(EventKind.NMI, Place("do_nmi", "mov eax"))
_FLAGS = "SDM Vol. 3A, 7.12.1.3"
_STACKS = "SDM Vol. 3A, 7.14.2"
_IST = "SDM Vol. 3A, 7.14.5"
_RESUME = "SDM Vol. 3B, 18.3.1.1"
_LATCH = "SDM Vol. 3A, 7.7.1"
_CODES = "SDM Vol. 3A, Table 7-1"
_SYSCALL = "SDM Vol. 2B, SYSCALL"

CORES = (
    _door("core-frame-not-aligned", _STACKS, Witness("interrupt-from-kernel", (_PUSHED,)), FrameNotAligned),
    _door("core-saves-aligned-rsp", _STACKS, Witness("interrupt-from-kernel", (_PUSHED,)), SavesAlignedRsp),
    _door("core-gate-error-times-16", "SDM Vol. 3A, 7.13", Witness("int-1-from-user"), GateErrorTimes16),
    _door("core-no-ist", _IST, Witness("int3-from-user"), NoIst),
    _door("core-ist-from-user-only", _IST, Witness("int3-from-kernel"), IstFromUserOnly),
    _door("core-always-rsp0", _STACKS, Witness("page-fault-from-kernel"), AlwaysRsp0),
    _door("core-rsp1-for-rsp0", _STACKS, Witness("page-fault-from-user"), Rsp1ForRsp0),
    _door("core-keeps-if", _FLAGS, Witness("page-fault-from-user"), KeepsInterruptFlag),
    _door("core-keeps-tf", _FLAGS, Witness("debug-from-user"), KeepsTrapFlag),
    _door("core-keeps-nt", _FLAGS, Witness("page-fault-from-user", registers={"rflags": FIXED | IF | NT}), KeepsNestedTask),
    _door(
        "core-clears-ac",
        _FLAGS,
        Witness("page-fault-from-user", profile="intel-2012", registers={"rflags": FIXED | IF | AC}),
        ClearsAlignmentCheck,
    ),
    _door("core-never-saves-rf", _RESUME, Witness("page-fault-from-user"), NeverSavesResume),
    _door("core-saves-rf-of-traps", _RESUME, Witness("int3-from-user"), SavesResumeOfTraps),
    _door("core-not-present-without-error-code", _CODES, Witness("segment-not-present-from-user"), NotPresentWithoutCode),
    _latch("core-no-sti-shadow", "SDM Vol. 2B, STI", Witness("interrupt-from-kernel", (_BEHIND_STI,)), NoShadow),
    _latch("core-no-nmi-latch", _LATCH, Witness("nmi-from-user", (_NMI, _NMI_IN_NMI)), NoLatch),
    _latch("core-nmi-latch-stays", _LATCH, Witness("nmi-from-user", (_NMI, _NMI_IN_NMI)), LatchStays),
    _call("core-fmask-ignored", _SYSCALL, Witness("system-call-from-user"), MaskIgnored),
    _call("core-fmask-of-16-bits", _SYSCALL, Witness("system-call-from-user", registers={"rflags": FIXED | IF | AC}), MaskOf16Bits),
)
