"""What a slice has found, as JSON and back."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from db.records import NewBucket, NewCase, NewFinding, SliceResult


def to_json(result: SliceResult) -> dict[str, Any]:
    """Whatever `json.dumps` takes; the bytes of a case are hex digits."""
    # Of a Counter, `asdict` makes nonsense: it counts the pairs.
    plain = replace(result, not_modelled=dict(result.not_modelled), tolerated=dict(result.tolerated), hits=dict(result.hits))
    value = asdict(plain)
    for finding in value["findings"]:
        finding["case"]["data"] = finding["case"]["data"].hex()
    return value


def from_json(value: dict[str, Any]) -> SliceResult:
    """What `to_json` was given; KeyError, TypeError or ValueError if it never was."""
    return SliceResult(**value | {"findings": [_finding(each) for each in value["findings"]]})


def _finding(value: dict[str, Any]) -> NewFinding:
    case = value["case"]
    return NewFinding(**value | {"bucket": NewBucket(**value["bucket"]), "case": NewCase(**case | {"data": bytes.fromhex(case["data"])})})
