"""A run of the specification that says what happened in it: each step as instruction or event, GS, privilege level and outcome.

GS is reduced to what entry code asks about it: whether GS.base and IA32_KERNEL_GS_BASE are kernel addresses. A step is reduced to a
number; two runs that give the same numbers went the same way for all that guided fuzzing knows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final
from zlib import crc32

from fuzzer.compare import Difference
from fuzzer.targets import layout
from reference.boot import boot, observe
from reference.delivery import Ended
from reference.faults import Fault, NotModelled, Shutdown
from reference.image import Delivery, End, Image, Observation
from reference.machine import Machine
from reference.run import run, step

_SIGN: Final = 63
_COMPLETES, _RAISES, _DELIVERS, _ENDS, _ARRIVES = range(5)
_ENTRY_TEXT: Final = range(layout.KERNEL_TEXT.start, layout.KERNEL_TEXT.end)
_FORMS: Final = 1 << 13
"""More than iced-x86 has forms of instructions: 0 stands for one that could not be fetched."""


def run_noting(image: Image, noted: set[int]) -> Observation:
    """What `reference.run.run` says of the image; the number of everything that happened is added to `noted`."""
    try:
        m = boot(image)
    except (Fault, NotModelled):
        return run(image)
    end, detail = End.DID_NOT_END, ""
    try:
        while m.retired < image.limit and len(m.deliveries) < image.limit:
            if not _step(m, noted):
                end = End.HALTED
                break
    except Ended:
        end = End.ENDED
    except Shutdown:
        end = End.SHUTDOWN
    except NotModelled as reason:
        end, detail = End.NOT_MODELLED, reason.what
    noted.add(number(_ENDS, list(End).index(end), m.cpl, _gs(m)))
    return observe(m, image, end, detail)


def _step(m: Machine, noted: set[int]) -> bool:
    translations, here, cpl, gs = m.translations, m.rip, m.cpl, _gs(m)
    retired, delivered, m.last_fault = m.retired, len(m.deliveries), None
    try:
        return step(m)
    finally:
        known = translations.fetches.get(here >> 12)
        instruction = known.get(here & 0xFFF) if known is not None else None
        form = instruction.code + 1 if instruction is not None else 0
        if len(m.deliveries) == delivered and m.last_fault is None:
            noted.add((form << 4 | cpl << 2 | gs) * 8 + _COMPLETES)
        else:
            _note_events(m, noted, form, here, cpl, gs, m.deliveries[delivered:], m.retired == retired)


def _note_events(m: Machine, noted: set[int], form: int, here: int, cpl: int, gs: int, new: Sequence[Delivery], waiting: bool) -> None:
    """A step that raised or delivered something: what it was, and what came of it."""
    fault = m.last_fault
    if fault is not None:
        noted.add(number(_RAISES, form, cpl, gs, fault.vector, _kind(fault.error_code)))
        noted.add(number(_RAISES, crc32(fault.rule.encode()), fault.vector))
    for entry in new:
        noted.add(number(_DELIVERS, entry.vector, cpl, gs, _kind(entry.error_code), fault.vector if fault else 0))
        if fault is None and waiting and here in _ENTRY_TEXT:
            noted.add(number(_ARRIVES, min(entry.vector, 32), here, gs))


def _kind(error_code: int | None) -> int:
    """An error code without the index of a selector: which is a value, and no kind of error."""
    return 0 if error_code is None else 1 + (error_code & 0x1F) if error_code < 0x20 else 0x40 + (error_code & 7)


def _gs(m: Machine) -> int:
    return m.gs.base >> _SIGN << 1 | m.kernel_gs_base >> _SIGN


def number(kind: int, *parts: int) -> int:
    """A number for what happened, the same in every process: parts are mixed, so the numbers of two kinds are told apart by `kind`."""
    mixed = 0
    for part in parts:
        mixed = (mixed ^ part) * 0x9E37_79B9_7F4A_7C15 & 0xFFFF_FFFF_FFFF_FFFF
        mixed ^= mixed >> 29
    return mixed << 3 | kind


def parting(core: int, differences: Iterable[Difference], forms: str) -> int:
    """A number for how a core differs at the end, without values: another set of fields is something new, another value is not."""
    names = sorted({difference.field.partition("+")[0] for difference in differences})
    return number(5, core, crc32(" ".join((*names, forms)).encode()))
