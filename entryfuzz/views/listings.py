"""Tables of buckets, cores, targets, scenarios and measurements."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from entryfuzz.disassembly import Line
from entryfuzz.views import text
from fuzzer.targets.target import Target

if TYPE_CHECKING:
    from db.records import BucketRow


def table(*columns: str, right: Sequence[str] = ()) -> Table:
    """A table of this house: no lines, headings in bold, numbers to the right."""
    result = Table(box=None, pad_edge=False, header_style=text.HEADING, padding=(0, 2, 0, 0))
    for column in columns:
        result.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return result


def buckets(rows: Iterable[BucketRow]) -> Table:
    """A line for each bucket."""
    rows = list(rows)
    voted = any(row.verdict for row in rows)
    moved = any(row.status != "open" for row in rows)
    some = [*(["status"] if moved else []), *(["verdict"] if voted else [])]
    result = table("id", "hits", "area", "kind", "core", "profile", "by", *some, "title", right=("hits",))
    for row in rows:
        known = [*([life(row)] if moved else []), *([row.verdict or "-"] if voted else [])]
        result.add_row(row.id, str(row.hits), row.area, row.kind, row.core, row.profile, row.by, *known, row.title)
    return result


def life(row: BucketRow) -> str:
    """The status of a bucket, with the version that no longer shows it."""
    return f"{row.status} in {row.fixed_version}" if row.status == "fixed" else row.status


def bucket_json(row: BucketRow) -> dict[str, Any]:
    """A bucket for programs."""
    return {
        "id": row.id,
        "area": row.area,
        "kind": row.kind,
        "core": row.core,
        "signature": row.signature,
        "hits": row.hits,
        "title": row.title,
        "profile": row.profile,
        "by": row.by,
        "cause": row.cause,
        "rule": row.rule,
        "expected": row.expected,
        "observed": row.observed,
        "status": row.status,
        "fixed_version": row.fixed_version,
        "fixed_at": row.fixed_at.isoformat() if row.fixed_at else None,
        "verdict": row.verdict,
        "targets": list(row.targets),
        "findings": row.findings,
        "first_seen": row.first_seen.isoformat(),
        "last_seen": row.last_seen.isoformat(),
    }


def counts(title: str, values: Mapping[str, int], unit: str = "cases") -> Table:
    """Names with numbers, the largest first."""
    result = table(title, unit, right=(unit,))
    for name, count in sorted(values.items(), key=lambda item: (-item[1], item[0])):
        result.add_row(name, f"{count:,}")
    return result


def cores(rows: Iterable[Mapping[str, Any]]) -> Table:
    """A line for each core."""
    result = table("core", "version", "events delivered by", "package", "")
    for row in rows:
        by = "" if row["delivers_events"] is None else ("the engine" if row["delivers_events"] else "its adapter")
        result.add_row(row["name"], row["version"] or "-", by, row["package"], row["reason"])
    return result


def targets(known: Iterable[Target]) -> Table:
    """A line for each target."""
    result = table("target", "scenarios", "", right=("scenarios",))
    for target in known:
        result.add_row(target.name, str(len(target.scenarios)), target.summary)
    return result


def scenarios(target: Target, starts: Mapping[str, str]) -> Table:
    """A line for each scenario, with the name of the address it starts at."""
    result = table("scenario", "CPL", "starts at", "", right=("CPL",))
    for scenario in target.scenarios:
        result.add_row(scenario.name, str(scenario.cpl), starts[scenario.name], scenario.summary)
    return result


def disassembly(lines: Iterable[Line]) -> Table:
    """A listing: labels on lines of their own; labels whose code is the same as the one before are named together."""
    result = Table.grid(padding=(0, 2))
    for names, block in _merged(lines):
        result.add_row(Text(f"{', '.join(names)}:" if len(names) < 3 else f"{names[0]} … {names[-1]}:", style=text.HEADING))
        for line in block:
            result.add_row(Text(f"  {line.address:#x}"), Text(line.code.hex(" "), style=text.QUIET), Text(line.text))
    return result


def _merged(lines: Iterable[Line]) -> list[tuple[list[str], list[Line]]]:
    blocks: list[tuple[list[str], list[Line]]] = []
    for line in lines:
        if line.symbol or not blocks:
            blocks.append(([line.symbol], []))
        blocks[-1][1].append(line)
    merged: list[tuple[list[str], list[Line]]] = []
    for names, block in blocks:
        if merged and [line.code for line in merged[-1][1]] == [line.code for line in block]:
            merged[-1][0].extend(names)
        else:
            merged.append((names, block))
    return merged


def measurements(rows: Iterable[Mapping[str, Any]]) -> Table:
    """A line for each target and copy of the specification."""
    result = table("target", "copy", "spec", "core", "pair", "pair/core", right=("spec", "core", "pair", "pair/core"))
    for row in rows:
        result.add_row(row["target"], row["copy"], *(f"{row[name]:,.0f}/s" for name in ("spec", "core", "pair")), f"{row['ratio']:.2f}")
    return result
