"""What counts as having found a mutant: a broken promise, or a divergence where the unchanged core agrees with the specification."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fuzzer.case import Case
from fuzzer.compare import Comparison, compare
from fuzzer.cores.core import Core
from reference.image import End, Image, Observation
from reference.linux.contract import Violation


@dataclass(frozen=True, slots=True)
class Tried:
    """A case, and what the specification says of it."""

    case: Case
    image: Image
    spec: Observation
    violations: tuple[Violation, ...] = ()


Look = Callable[[Tried], str]
"""What a case gives away, in words; empty if nothing."""


def broken_promise(tried: Tried) -> str:
    """The first promise that the entry code breaks, or that it never comes back.

    Every scenario ends, whatever arrives, so a run that goes on for ever has lost its way; only registers and memory of the case's own
    may make user mode itself fault for ever. Nothing that user mode does shuts a processor down.
    """
    if tried.violations:
        return tried.violations[0].promise
    case, end = tried.case, tried.spec.end
    lost = end in (End.HALTED, End.SHUTDOWN) or (end is End.DID_NOT_END and not (case.registers or case.memory))
    return end.value if lost else ""


def divergence(clean: Core, wrong: Core) -> Look:
    """The first field in which a changed core differs from the specification, where the unchanged one does not differ at all.

    What the unchanged core does wrong is a finding about that engine, and none about the mutant.
    """

    def look(tried: Tried) -> str:
        seen = _compared(tried, wrong)
        if not seen.differences:
            return ""
        usual = _compared(tried, clean)
        return seen.differences[0].field if usual.comparable and not usual.differences else ""

    return look


def _compared(tried: Tried, core: Core) -> Comparison:
    return compare(tried.image, tried.spec, next(iter(core.run([tried.image]))))
