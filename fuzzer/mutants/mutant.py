"""A mutant: one wrong condition or one wrong step, with the story of where it comes from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import reduce

from fuzzer.cores.core import Core
from fuzzer.mutants.tables import Change
from fuzzer.mutants.witness import Witness
from fuzzer.targets.target import Target


class Kind(StrEnum):
    """What is wrong."""

    ENTRY_CODE = "entry code"
    DESCRIPTOR = "descriptor"
    CORE = "core"


@dataclass(frozen=True, slots=True)
class Mutant:
    """A target with changes, or a core with one behaviour changed."""

    name: str
    kind: Kind
    story: str
    """What goes wrong and why it is not seen at once."""
    source: str
    """Where it happened or what forbids it."""
    witness: Witness
    changes: tuple[Change, ...] = ()
    core: Callable[[], Core] | None = None
    arrival_only: bool = False
    """Every scenario keeps the contract when nothing but its own event arrives."""

    def target(self, clean: Target) -> Target:
        """The target that this mutant runs on."""
        return reduce(lambda target, change: change.apply(target), self.changes, clean)


def entry_mutant(name: str, story: str, source: str, witness: Witness, *changes: Change, arrival_only: bool = False) -> Mutant:
    """A mutant of the entry code."""
    return Mutant(name, Kind.ENTRY_CODE, story, source, witness, changes, arrival_only=arrival_only)
