"""What the conformance checks said of a core."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from entryfuzz.views import text
from entryfuzz.views.listings import table
from fuzzer.conformance import Result


def results(name: str, checked: Sequence[Result]) -> Iterator[RenderableType]:
    """A line for each check, and the sum."""
    lines = table("check", "", "promise", "what is wrong, or cannot be expressed")
    for each in checked:
        lines.add_row(each.name, Text(each.state, style=text.DIFFERS if each.state == "broken" else ""), each.promise, each.detail)
    yield lines
    broken = sum(each.state == "broken" for each in checked)
    yield Text(f"\n{name}: {len(checked)} checks, {broken} broken")


def result_json(each: Result) -> dict[str, Any]:
    """A check for programs."""
    return asdict(each)
