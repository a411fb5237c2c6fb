"""Planted bugs as tables: their stories, and their score."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rich.console import RenderableType
from rich.table import Table

from entryfuzz.views.listings import table
from fuzzer.mutants.mutant import Mutant
from fuzzer.mutants.trial import TARGET
from fuzzer.targets.registry import TARGETS


def changes(mutant: Mutant) -> list[str]:
    """What a mutant has different, in words; a core's story says it already."""
    return [change.words(TARGETS[TARGET]) for change in mutant.changes]


def mutants(known: Iterable[Mutant]) -> Table:
    """A line for each mutant."""
    result = table("mutant", "kind", "story", "source")
    for mutant in known:
        result.add_row(mutant.name, mutant.kind.value, mutant.story, mutant.source)
    return result


def mutant_json(mutant: Mutant) -> dict[str, Any]:
    """A mutant for programs."""
    return {
        "name": mutant.name,
        "kind": mutant.kind.value,
        "story": mutant.story,
        "source": mutant.source,
        "changes": changes(mutant),
        "scenario": mutant.witness.scenario,
        "arrival_only": mutant.arrival_only,
    }


def score(result: Mapping[str, Any]) -> Iterator[RenderableType]:
    """The score: a line for each mutant, then the totals."""
    rows = table("mutant", "kind", "witness", "found by", "cases", "seconds", "finding", right=("cases", "seconds"))
    for row in result["mutants"]:
        best = row["arms"][row["arm"]] if row["arm"] else None
        rows.add_row(
            row["name"],
            row["kind"],
            "shows it" if row["witness"] else "FAILS",
            row["arm"] or "missed",
            f"{row['cases']:,}" if best else "",
            f"{row['seconds']:.2f}" if best else "",
            best["finding"] if best else "",
        )
    yield rows
    yield ""
    yield totals(result)
    for example in result["false_positive_examples"]:
        yield f"false alarm: {example}"


def totals(result: Mapping[str, Any]) -> str:
    """The score in one line."""
    found, planted = result["found"], len(result["mutants"])
    return (
        f"{found} of {planted} planted bugs found; {result['false_positives']} false positives in {result['clean_cases']:,} cases "
        f"on the clean build; medians of {result['seeds']} seeds"
    )
