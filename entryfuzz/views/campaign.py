"""A campaign while it runs and when it has ended."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rich.console import RenderableType
from rich.text import Text

from entryfuzz.views import listings, text

if TYPE_CHECKING:
    from workers.local import Progress, Settings, Summary


def progress_line(progress: Progress, settings: Settings) -> str:
    """One line: how far, how fast, and what has been found."""
    rate = progress.cases / progress.seconds if progress.seconds else 0.0
    of = f" of {settings.cases:,}" if settings.cases is not None else ""
    until = f" of {settings.seconds:.0f} s" if settings.seconds is not None else " s"
    counts = f"{progress.buckets:,} buckets  {progress.not_modelled:,} not modelled  {progress.crashes:,} crashes"
    return f"{progress.cases:,}{of} cases  {rate:,.0f}/s  {counts}  {progress.seconds:.0f}{until}"


def summary(result: Summary, settings: Settings) -> Iterator[RenderableType]:
    """What a campaign did, and the buckets it hit."""
    rate = result.cases / result.seconds if result.seconds else 0.0
    yield Text(f"campaign {result.campaign_id}, seed {settings.seed}: {result.cases:,} cases in {result.seconds:.1f} s, {rate:,.0f}/s")
    if result.not_modelled:
        yield Text(f"not modelled, so not compared: {sum(result.not_modelled.values()):,} cases, most of all {_most(result.not_modelled)}")
    if result.tolerated:
        yield Text(f"tolerated: {', '.join(f'{name} in {count:,}' for name, count in sorted(result.tolerated.items()))}")
    if result.crashes:
        yield Text(f"crashes and hangs of the core: {result.crashes:,}", style=text.DIFFERS)
    yield text.heading(f"{len(result.buckets)} buckets")
    yield listings.buckets(result.buckets)
    if result.buckets:
        yield Text(f"\nentryfuzz divergences show {result.buckets[0].id} --db {settings.database}", style=text.QUIET)


def _most(counts: dict[str, int]) -> str:
    largest = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:3]
    return ", ".join(f"{name} ({count:,})" for name, count in largest)


def summary_json(result: Summary, settings: Settings) -> dict[str, Any]:
    """The same for programs."""
    return {
        "campaign": result.campaign_id,
        "targets": list(settings.targets),
        "core": ", ".join(settings.cores),
        "cores": list(settings.cores),
        "profiles": list(settings.profiles),
        "seed": settings.seed,
        "jobs": settings.jobs,
        "mode": settings.mode,
        "cases": result.cases,
        "seconds": result.seconds,
        "cases_per_second": result.cases / result.seconds if result.seconds else 0.0,
        "not_modelled": dict(result.not_modelled),
        "tolerated": dict(result.tolerated),
        "crashes": result.crashes,
        "buckets": [listings.bucket_json(row) for row in result.buckets],
    }
