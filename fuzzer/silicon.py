"""Asking the host's processor: the first event of a case in user mode, the specification's beside the silicon's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from fuzzer.compare import Difference, state_differences
from fuzzer.cores.silicon.core import SiliconCore
from fuzzer.cores.silicon.event import FIELDS, FirstEvent, Kind
from fuzzer.cores.silicon.tolerances import (
    KERNEL_PRESENT,
    LAST_USER,
    LOCKED_VERW,
    NULL_SELECTORS,
    REINJECTED_DEBUG,
)
from fuzzer.fault_order import possible_faults
from fuzzer.first_event import first_event
from fuzzer.tolerances import UNDEFINED_FLAGS, Tolerance
from fuzzer.view import linear_bytes
from reference.bits import RF
from reference.faults import Vector
from reference.image import REGISTERS, Image, Undefined
from reference.paging import ERROR_PRESENT

_DATA_SELECTORS = ("es", "ds", "fs", "gs")
_SAME = (0,) * len(REGISTERS)


class Verdict(StrEnum):
    """What the processor has to say of a case."""

    AGREES = "agrees"
    DIFFERS = "differs"
    UNASKED = "cannot be asked"


@dataclass(frozen=True, slots=True)
class Answer:
    """The processor's verdict on the specification's first event, and both in words; `detail` says why it cannot be asked."""

    verdict: Verdict
    spec: str = ""
    silicon: str = ""
    detail: str = ""
    differences: tuple[Difference, ...] = ()
    tolerated: tuple[str, ...] = ()


def ask(image: Image, core: SiliconCore) -> Answer:
    """Whether the processor says of the first event of `image` what the specification says.

    The host cannot be every machine: what the case has beside user mode is replaced by what Linux has (`Host.fit`). Where
    that changes what the specification says, or the image is of another vendor's profile, the processor cannot be asked.
    """
    if image.profile.vendor != core.profile.vendor:
        return Answer(Verdict.UNASKED, detail=f"the case is for {image.profile.name}, the processor is of another vendor")
    fitted = core.host.fit(image)
    if isinstance(fitted, str):
        return Answer(Verdict.UNASKED, detail=fitted)
    wanted, expected = first_event(image), first_event(fitted.image)
    for each in (wanted, expected):
        if each.kind is Kind.OPEN:
            return Answer(Verdict.UNASKED, detail=each.detail)
    if agree(fitted.image, wanted, expected, hypervisor=False).differences:
        return Answer(Verdict.UNASKED, wanted.words, detail="its first event depends on what the host's kernel has otherwise")
    once, again = core.first([fitted, fitted])
    if once != again:
        return Answer(Verdict.UNASKED, wanted.words, detail="the processor does not answer twice alike")
    if once.kind is Kind.OPEN:
        return Answer(Verdict.UNASKED, wanted.words, detail=once.detail)
    found = agree(fitted.image, expected, once, core.hypervisor)
    verdict = Verdict.DIFFERS if found.differences else Verdict.AGREES
    return Answer(verdict, wanted.words, once.words, differences=found.differences, tolerated=found.tolerated)


@dataclass(frozen=True, slots=True)
class Agreement:
    """What remains between two first events, and the tolerances that hid something."""

    differences: tuple[Difference, ...] = ()
    tolerated: tuple[str, ...] = ()


def agree(image: Image, spec: FirstEvent, silicon: FirstEvent, hypervisor: bool) -> Agreement:
    """Compare the specification's first event of `image` with the processor's; neither is open."""
    tolerated: set[str] = set()
    differences = [*_event(spec, silicon, tolerated), *_state(image, spec, silicon, tolerated)]
    if differences and (reason := _excuse(image, spec, silicon, differences, hypervisor)):
        return Agreement(tolerated=tuple(sorted({*tolerated, reason.id})))
    return Agreement(tuple(differences), tuple(sorted(tolerated)))


def _event(spec: FirstEvent, silicon: FirstEvent, tolerated: set[str]) -> Iterator[Difference]:
    """Kind, vector, error code and CR2."""
    same = (spec.kind, spec.vector, spec.error_code) == (silicon.kind, silicon.vector, silicon.error_code)
    if not same and spec.vector == silicon.vector == Vector.PF and spec.cr2 == silicon.cr2:
        same = _as_linux_says(silicon.error_code, silicon.cr2) == _as_linux_says(spec.error_code, spec.cr2)
        if same:
            tolerated.add(KERNEL_PRESENT.id)
    if not same:
        yield Difference("event", spec.words, silicon.words)
    elif spec.cr2 is not None and silicon.cr2 is not None and spec.cr2 != silicon.cr2:
        yield Difference("cr2", spec.cr2, silicon.cr2)


def _as_linux_says(error_code: int | None, cr2: int | None) -> int | None:
    """The error code of a page fault after Linux has hidden whether a kernel address is mapped."""
    return error_code | ERROR_PRESENT if error_code is not None and cr2 is not None and cr2 >= LAST_USER else error_code


def _state(image: Image, spec: FirstEvent, silicon: FirstEvent, tolerated: set[str]) -> list[Difference]:
    """Registers and memory."""
    differences: list[Difference] = []
    for name, expected, observed in zip(FIELDS, spec.registers, silicon.registers, strict=True):
        if expected == observed:
            continue
        if name in _DATA_SELECTORS and expected <= 3 and observed == 0:
            tolerated.add(NULL_SELECTORS.id)
        elif name == "rflags" and not (expected ^ observed) & ~spec.undefined:
            tolerated.add(UNDEFINED_FLAGS.id)
        else:
            differences.append(Difference(name, expected, observed))
    if spec.memory != silicon.memory:
        undefined = Undefined(words=spec.undefined_words)
        found, names = state_differences(image, _SAME, spec.memory, _SAME, silicon.memory, undefined)
        differences += found
        tolerated.update(names)
    return differences


def _excuse(image: Image, spec: FirstEvent, silicon: FirstEvent, differences: list[Difference], hypervisor: bool) -> Tolerance | None:
    """The tolerance that covers all of the differences, if one does."""
    fields = {difference.field for difference in differences}
    if spec.vector == Vector.UD and _is_locked_verw(image, spec):
        return LOCKED_VERW
    if fields <= {"event", "cr2"} and spec.kind is silicon.kind is Kind.EXCEPTION and (reason := _other_fault(image, spec, silicon)):
        return reason
    if hypervisor and fields <= {"rip", "rflags"} and spec.vector == silicon.vector == Vector.DB and _is_reinjected(image, spec, silicon):
        return REINJECTED_DEBUG
    return None


def _other_fault(image: Image, spec: FirstEvent, silicon: FirstEvent) -> Tolerance | None:
    """Why the processor may raise another fault that the same instruction meets."""
    known = possible_faults(image, spec.retired).items()
    as_seen = {(vector, _as_linux_says(error, cr2), cr2): reason for (vector, error, cr2), reason in known}
    return as_seen.get((silicon.vector, silicon.error_code, silicon.cr2))


_INT1, _CPUID = b"\xf1", b"\x0f\xa2"


def _is_reinjected(image: Image, spec: FirstEvent, silicon: FirstEvent) -> bool:
    """#DB of an INT1, saved as if it were a fault; of a repeated string, saved without RF; behind CPUID, saved with RF."""
    before, after = (each.register("rflags") & ~spec.undefined for each in (spec, silicon))
    rip = spec.register("rip")
    if silicon.register("rip") != rip:
        return silicon.register("rip") == spec.start and before == after and _code(image, spec, rip - 1, 1) == _INT1
    if before == after | RF:
        return rip == spec.start
    return before | RF == after and _code(image, spec, rip - 2, 2) == _CPUID


def _is_locked_verw(image: Image, spec: FirstEvent) -> bool:
    """LOCK, perhaps other prefixes, 0F 00 /5 with a memory operand."""
    code = _code(image, spec, spec.start, 15)
    place = code.find(b"\x0f\x00")
    if place < 1 or place + 2 >= len(code):
        return False
    modrm = code[place + 2]
    return 0xF0 in code[:place] and modrm >> 3 & 7 == 5 and modrm < 0xC0


def _code(image: Image, spec: FirstEvent, linear: int, size: int) -> bytes:
    return linear_bytes(image, spec.memory, image.registers["cr3"], linear, size)
