"""A check of the specification against the host's processor, with its progress on stderr."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from entryfuzz.errors import Mistake
from entryfuzz.output import note
from fuzzer.case_json import dump

if TYPE_CHECKING:
    from fuzzer.silicon_check import Differing, Tally

_SECONDS_BETWEEN_LINES = 10.0


def check_with_progress(seed: int, cases: int, jobs: int) -> dict[str, Any]:
    """What came of it, as JSON values."""
    from fuzzer.cores.silicon.probe import available, processor
    from fuzzer.silicon_check import Tally
    from workers.asking import run_check

    version, reason = available()
    found = processor()
    if version is None or found is None or found.profile is None:
        raise Mistake(f"silicon: {reason}")
    note(f"checking the specification on {version}, profile {found.profile.name}, seed {seed}")
    start = following = time.monotonic()
    tally = Tally()
    for part in run_check(seed, cases, jobs):
        tally.add(part)
        if time.monotonic() >= following + _SECONDS_BETWEEN_LINES:
            following = time.monotonic()
            rate = tally.cases / (following - start)
            note(f"{tally.cases} of {cases} cases, {rate:.0f}/s, {tally.compared} compared, {len(tally.differing)} differences")
    return _json(version, found.profile.name, seed, tally, time.monotonic() - start)


def _json(version: str, profile: str, seed: int, tally: Tally, seconds: float) -> dict[str, Any]:
    return {
        "processor": version,
        "profile": profile,
        "seed": seed,
        "cases": tally.cases,
        "compared": tally.compared,
        "not_asked": dict(tally.open.most_common()),
        "not_repeatable": tally.unrepeatable,
        "tolerated": dict(tally.tolerated.most_common()),
        "differences": [_difference(each) for each in tally.differing],
        "seconds": round(seconds, 1),
    }


def _difference(each: Differing) -> dict[str, Any]:
    fields = {part.field: {"spec": _value(part.expected), "silicon": _value(part.observed)} for part in each.differences}
    return {"case": dump(each.case), "spec": each.spec, "silicon": each.silicon, "fields": fields}


def _value(value: int | str) -> str:
    return value if isinstance(value, str) else f"{value:#x}"
