"""What engines did with the cases of buckets, and the verdicts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from entryfuzz.views import text
from entryfuzz.views.listings import counts, table

if TYPE_CHECKING:
    from db.vote_records import NewVerdict, VerdictRow, VoteRecord
    from entryfuzz.voting import Voted

NOT_VOTED_ON = "not voted on"
SPECIFICATION = "specification"


def voted(results: Sequence[Voted]) -> Iterator[RenderableType]:
    """A line for each bucket, and how many of each verdict there are."""
    lines = table("id", "core", "verdict", "title", "why")
    for each in results:
        verdict = each.verdict
        lines.add_row(each.bucket.id, each.bucket.core, _verdict(verdict), each.bucket.title, verdict.why if verdict else "")
    yield lines
    yield Text()
    yield counts("verdict", Counter(_verdict(each.verdict) for each in results), unit="buckets")


def _verdict(verdict: NewVerdict | None) -> str:
    return verdict.verdict if verdict else NOT_VOTED_ON


def voted_json(each: Voted) -> dict[str, Any]:
    """The vote on a bucket for programs."""
    verdict = each.verdict
    return {
        "bucket": each.bucket.id,
        "title": each.bucket.title,
        "core": each.bucket.core,
        "verdict": verdict.verdict if verdict else None,
        "why": verdict.why if verdict else "",
        "case": verdict.case_digest if verdict else None,
        "engines": engines_json(verdict) if verdict else {},
    }


def engines_json(verdict: NewVerdict | VerdictRow) -> dict[str, Any]:
    """Each engine's outcome, the specification's first."""
    votes = {vote.engine: {"outcome": vote.outcome, "stance": vote.stance, "version": vote.version} for vote in verdict.votes}
    return {SPECIFICATION: {"outcome": verdict.expected, "stance": "", "version": ""}, **votes}


def ballot(verdict: VerdictRow) -> Table:
    """What the specification and each engine did at the step that was voted on."""
    lines = Table.grid(padding=(0, 2))
    lines.add_row("", Text(SPECIFICATION), verdict.expected, "")
    for vote in verdict.votes:
        lines.add_row("", f"{vote.engine} {vote.version}", _outcome(vote), Text(vote.stance, style=text.QUIET))
    return lines


def _outcome(vote: VoteRecord) -> str:
    return vote.outcome or "-"
