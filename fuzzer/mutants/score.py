"""The score of planted bugs: found or not, by which arm, after how many cases and seconds; as the median over several seeds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from fuzzer.mutants.arms import ARMS
from fuzzer.mutants.catalogue import CONTROLS, MUTANTS
from fuzzer.mutants.mutant import Mutant
from fuzzer.mutants.proof import seen_by_witness
from fuzzer.mutants.trial import TARGET, Result, Trial
from fuzzer.targets.registry import TARGETS

SEEDS: Final = 3
"""Trials of a mutant with one arm; the median of an odd number is one of them."""


def trials(names: Sequence[str], seconds: float, seed: int) -> list[Trial]:
    """Everything to be tried for some mutants and, always, for the controls; the longest first."""
    return [Trial(name, arm, seed + n, seconds) for name in (*CONTROLS, *names) for arm in ARMS for n in range(SEEDS)]


def score(names: Sequence[str], results: Iterable[Result]) -> dict[str, Any]:
    """The report: a row for each mutant, the false alarms of the controls, totals."""
    done = list(results)
    mutants = [_row(MUTANTS[name], [one for one in done if one.trial.mutant == name]) for name in names]
    alarms = [one for one in done if one.trial.mutant in CONTROLS]
    return {
        "mutants": mutants,
        "found": sum(row["found"] for row in mutants),
        "false_positives": sum(one.findings for one in alarms),
        "false_positive_examples": sorted({one.finding for one in alarms if one.finding}),
        "clean_cases": sum(one.cases for one in alarms),
    }


def _row(mutant: Mutant, results: Sequence[Result]) -> dict[str, Any]:
    """One mutant; the arm that needs the fewest cases stands for it."""
    arms = {arm: _arm([one for one in results if one.trial.arm == arm]) for arm in ARMS}
    best = min((arm for arm in arms if arms[arm]["found"]), key=lambda arm: arms[arm]["cases"], default=None)
    return {
        "name": mutant.name,
        "kind": mutant.kind.value,
        "story": mutant.story,
        "source": mutant.source,
        "changes": [change.words(TARGETS[TARGET]) for change in mutant.changes],
        "arrival_only": mutant.arrival_only,
        "witness": bool(seen_by_witness(mutant)),
        "found": best is not None,
        "arm": best,
        "cases": arms[best]["cases"] if best else None,
        "seconds": arms[best]["seconds"] if best else None,
        "arms": arms,
    }


def _arm(results: Sequence[Result]) -> dict[str, Any]:
    """One arm: found if most seeds found it, and then the seed in the middle tells how soon."""
    order = sorted(results, key=lambda one: (not one.findings, one.cases))
    middle = order[len(order) // 2]
    return {
        "found": bool(middle.findings),
        "cases": middle.cases,
        "seconds": round(middle.seconds, 3),
        "seeds_that_found": sum(bool(one.findings) for one in results),
        "seeds": len(results),
        "finding": order[0].finding,
    }
