"""What became of the corpus."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.text import Text


def exported(counts: Mapping[str, int], folder: Path) -> Text:
    """How many cases were written."""
    return Text(f"{_each(counts)} written to {folder}" if counts else "the corpus is empty: entryfuzz fuzz --mode guided fills it")


def imported(counts: Mapping[str, int], folder: Path) -> Text:
    """How many cases are new."""
    left_out = f", {counts['too_large']:,} files too large" if counts["too_large"] else ""
    return Text(f"{counts['new']:,} new cases from {folder}, {counts['known']:,} known{left_out}")


def merged(rows: Sequence[Mapping[str, str | int]]) -> Text:
    """How much smaller it is."""
    if not rows:
        return Text("the corpus is empty: entryfuzz fuzz --mode guided fills it")
    return Text("\n".join(f"{row['target']}: {row['before']:,} cases before, {row['after']:,} now" for row in rows))


def _each(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} cases of {target}" for target, count in counts.items())
