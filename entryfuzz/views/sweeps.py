"""A sweep when it has ended: how much was tried, and the buckets it hit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rich.console import RenderableType
from rich.text import Text

from entryfuzz.views import listings, text

if TYPE_CHECKING:
    from db.sweep_records import SweepTotals
    from workers.sweeping import SweepSettings, SweepSummary


def summary(result: SweepSummary, settings: SweepSettings) -> Iterator[RenderableType]:
    """What a sweep did and found."""
    each = result.totals
    before = f", {result.resumed} of the paths before" if result.resumed else ""
    yield Text(f"sweep {result.sweep_id}: {counts(each)} in {result.seconds:.1f} s{before}")
    if result.not_modelled:
        reasons = sorted(result.not_modelled.items(), key=lambda item: (-item[1], item[0]))
        yield Text(f"not modelled: {sum(result.not_modelled.values()):,} runs")
        yield listings.counts("reason", dict(reasons))
    if result.crashes:
        yield Text(f"crashes and hangs of the core: {result.crashes:,}", style=text.DIFFERS)
    style = text.DIFFERS if each.contract_violations else ""
    yield Text(f"{each.contract_violations:,} runs break the contract, {each.divergences:,} diverge", style=style)
    yield text.heading(f"{len(result.buckets)} buckets")
    yield listings.buckets(result.buckets)
    yield Text(f"\nentryfuzz sweep show {result.sweep_id} --db {settings.database}", style=text.QUIET)


def counts(each: SweepTotals) -> str:
    """`21 paths, 2,305 boundaries, 6,936 runs (3,394 merged)`."""
    return f"{each.paths:,} paths, {each.boundaries:,} boundaries, {each.runs:,} runs ({each.merged:,} merged)"


def totals_json(each: SweepTotals) -> dict[str, int]:
    """Sums for programs."""
    return {
        "paths": each.paths,
        "boundaries": each.boundaries,
        "runs": each.runs,
        "merged": each.merged,
        "contract_violations": each.contract_violations,
        "divergences": each.divergences,
    }


def summary_json(result: SweepSummary, settings: SweepSettings) -> dict[str, Any]:
    """The same for programs."""
    return {
        "sweep": result.sweep_id,
        "campaign": result.campaign_id,
        "target": settings.target,
        "core": settings.core,
        "scenarios": list(settings.scenarios),
        "profiles": list(settings.profiles),
        "events": list(settings.kinds),
        "second": list(settings.second) if settings.depth > 1 else [],
        "depth": settings.depth,
        "jobs": settings.jobs,
        **totals_json(result.totals),
        "seconds": result.seconds,
        "resumed": result.resumed,
        "not_modelled": dict(result.not_modelled),
        "crashes": result.crashes,
        "buckets": [listings.bucket_json(row) for row in result.buckets],
    }
