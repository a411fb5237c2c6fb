"""Finding a stored divergence and running its smallest example again, as far as this machine can."""

from __future__ import annotations

from typing import TYPE_CHECKING

from entryfuzz.database import opened
from entryfuzz.errors import Mistake
from entryfuzz.replay import Replay, find_core, replay, smallest_case
from entryfuzz.views.divergence import Shown
from fuzzer.case import decode
from fuzzer.cores.core import CoreError
from fuzzer.cores.registry import CORES

if TYPE_CHECKING:
    from db.records import FindingRow


def find_divergence(bucket_id: str, database: str) -> Shown:
    """The bucket whose id begins like this, with all its examples."""
    from db import life, queries, votes

    with opened(database) as engine:
        bucket = queries.bucket(engine, bucket_id)
        if bucket is None:
            raise Mistake(f"{bucket_id}: no bucket of {database} begins like this; see entryfuzz divergences list --db {database}")
        findings = queries.findings(engine, bucket.id)
        verdict = votes.verdict(engine, bucket.id)
        changes, replays = life.status_changes(engine, bucket.id), life.replays(engine, bucket.id)
    smallest_case(findings, bucket)
    replayed, note = _replayed(findings[0])
    return Shown(bucket, findings, replayed, database, note, verdict, changes, replays)


def _replayed(finding: FindingRow) -> tuple[Replay, str]:
    """The example on the specification and, where it is installed, on its core; and what that cannot tell."""
    case = decode(finding.case.data)
    if finding.core not in CORES:
        return replay(case, [], paths=True), f"the contract is broken: {finding.case.instance}"
    try:
        replayed = replay(case, [find_core(finding.core)], paths=True)
    except (Mistake, CoreError) as error:
        return replay(case, [], paths=True), f"the step that diverges is not known here: {error}"
    run = replayed.runs[0]
    if run.explanation is not None:
        return replayed, ""
    if not run.comparison.differences:
        return (
            replayed,
            f"{run.core} {run.version} agrees with the specification here; the divergence was found with {finding.core_version}",
        )
    reason = run.observation.detail or "run boundary by boundary, both sides agree"
    return replayed, f"no step can be told at which {run.core} parts from the specification: {reason}"
