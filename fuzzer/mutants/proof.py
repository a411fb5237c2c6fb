"""The proof that a mutant can be seen at all: its witness shows it, and shows nothing on the clean build."""

from __future__ import annotations

from fuzzer.build import builder
from fuzzer.mutants.arms import tried
from fuzzer.mutants.code import EditError
from fuzzer.mutants.mutant import Mutant
from fuzzer.mutants.trial import TARGET, look_of, target_of
from fuzzer.targets.registry import TARGETS
from fuzzer.targets.target import Target


def seen_by_witness(mutant: Mutant) -> str:
    """What the witness shows on the mutant; empty if it shows nothing, shows something on the clean build too, or cannot be made."""
    try:
        on_clean = "" if mutant.core else _shown(mutant, TARGETS[TARGET])
        return "" if on_clean else _shown(mutant, target_of(mutant))
    except EditError:
        return ""


def _shown(mutant: Mutant, target: Target) -> str:
    case = mutant.witness.case(target)
    return look_of(mutant)(tried(target, case, builder(target)(case)))
