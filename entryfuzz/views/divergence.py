"""One stored divergence, whole: what it is, the rule that decides, start, path, both ends, and how to replay it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from entryfuzz.disassembly import Symbols
from entryfuzz.replay import Replay
from entryfuzz.views import text
from entryfuzz.views.listings import bucket_json, life
from entryfuzz.views.route import parting, route
from entryfuzz.views.start import arrivals, start_state
from entryfuzz.views.states import EndStates, end_states
from entryfuzz.views.verdict import frames_of
from entryfuzz.views.votes import ballot, engines_json
from fuzzer.case import decode
from fuzzer.case_json import dump
from fuzzer.targets.registry import TARGETS

if TYPE_CHECKING:
    from db.life_records import ReplayRow, StatusChangeRow
    from db.records import BucketRow, FindingRow
    from db.vote_records import VerdictRow


@dataclass(frozen=True, slots=True)
class Shown:
    """A bucket with its examples, the smallest of them run again; `note` says what that could not tell."""

    bucket: BucketRow
    findings: Sequence[FindingRow]
    replayed: Replay
    database: str
    note: str = ""
    verdict: VerdictRow | None = None
    changes: Sequence[StatusChangeRow] = ()
    replays: Sequence[ReplayRow] = ()


def divergence(shown: Shown) -> Iterator[RenderableType]:
    """Everything a person needs to judge a divergence."""
    finding, replayed = shown.findings[0], shown.replayed
    case = replayed.case
    yield _head(shown)
    yield text.heading(f"Start state of case {finding.case.digest[:16]}")
    yield start_state(case)
    yield text.heading("Path (boundary, address, instruction; ▶ is where the core parts from the manual)")
    parted = parting(replayed.runs[0]) if replayed.runs else None
    symbols = Symbols(TARGETS[case.target].symbols)
    yield route(replayed.path, arrivals(case), parted, symbols)
    if shown.note:
        yield Text(f"  {shown.note}", style=text.QUIET)
    yield text.heading(f"End states ({finding.core} {finding.core_version})")
    yield end_states(_states(finding, replayed))
    if shown.verdict is not None:
        yield text.heading(f"Votes on case {shown.verdict.case_digest[:16]}")
        yield ballot(shown.verdict)
    yield text.heading("Replay")
    yield Text(f"  {command(shown)}")


def _head(shown: Shown) -> Table:
    bucket = shown.bucket
    versions = sorted({finding.core_version for finding in shown.findings})
    table = Table.grid(padding=(0, 2))
    table.add_row(Text("divergence", style=text.HEADING), Text(f"{bucket.id}  {bucket.title}", style=text.HEADING))
    table.add_row("area", f"{bucket.area}, {bucket.kind}, status {life(bucket)}")
    table.add_row("by", f"the {bucket.by} of {bucket.core}, version {', '.join(versions)}, on profile {bucket.profile}")
    table.add_row("hits", f"{bucket.hits:,} in {', '.join(bucket.targets)}, first {bucket.first_seen:%F}, last {bucket.last_seen:%F}")
    table.add_row("expected", bucket.expected)
    table.add_row("observed", Text(bucket.observed, style=text.DIFFERS))
    table.add_row("rule", bucket.rule)
    if shown.verdict is not None:
        table.add_row("verdict", f"{shown.verdict.verdict}: {shown.verdict.why}")
    for change in shown.changes:
        table.add_row("life", f"{change.at:%F} {change.status}: {change.why}")
    for replay in shown.replays:
        fared = f"{replay.shown} of {replay.shown + replay.gone + replay.untold} examples show it"
        table.add_row("replayed", f"{replay.replayed_at:%F} on {replay.core_version}: {fared}")
    return table


def _states(finding: FindingRow, replayed: Replay) -> EndStates:
    return EndStates(
        target=replayed.case.target,
        start=replayed.image.registers,
        spec=finding.spec,
        cores={finding.core: finding.observed},
        differing={finding.core: {difference["field"] for difference in finding.differences}},
        frames=frames_of(replayed),
    )


def command(shown: Shown) -> str:
    """The command line that runs the shown example again."""
    return f"entryfuzz case run {shown.bucket.id} --trace --db {shlex.quote(shown.database)}"


def divergence_json(shown: Shown) -> dict[str, Any]:
    """The same for programs: the bucket, and each kept example with its case file."""
    verdict = shown.verdict
    return bucket_json(shown.bucket) | {
        "why": verdict.why if verdict else "",
        "engines": engines_json(verdict) if verdict else {},
        "replay": command(shown),
        "changes": [_change(each) for each in shown.changes],
        "replays": [_fared(each) for each in shown.replays],
        "examples": [_example(finding) for finding in shown.findings],
    }


def _change(row: StatusChangeRow) -> dict[str, Any]:
    return {
        "status": row.status,
        "core_version": row.core_version,
        "why": row.why,
        "campaign": row.campaign_id,
        "at": row.at.isoformat(),
    }


def _fared(row: ReplayRow) -> dict[str, Any]:
    counts = {"shown": row.shown, "gone": row.gone, "untold": row.untold}
    return {"core_version": row.core_version, "campaign": row.campaign_id, **counts, "at": row.replayed_at.isoformat()}


def _example(finding: FindingRow) -> dict[str, Any]:
    return {
        "case": finding.case.digest,
        "file": dump(decode(finding.case.data)),
        "core_version": finding.core_version,
        "found_at": finding.found_at.isoformat(),
        "spec": finding.spec,
        "observed": finding.observed,
        "differences": finding.differences,
    }
