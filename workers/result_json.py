"""What slices have found, as JSON and back: one pair of functions for each kind of result."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from db.life_records import ReplayedCase, ReplayFound
from db.records import NewBucket, NewCase, NewFinding, SliceResult
from db.sweep_records import PathFound, SweptPath
from workers.guided import GuidedResult
from workers.merging import Merged


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


def path_to_json(result: PathFound) -> dict[str, Any]:
    """The same for a path of a sweep."""
    return {"path": asdict(replace(result.path, cells=dict(result.path.cells))), "found": to_json(result.found)}


def path_from_json(value: dict[str, Any]) -> PathFound:
    """What `path_to_json` was given; errors as above."""
    return PathFound(SweptPath(**value["path"]), from_json(value["found"]))


def guided_to_json(result: GuidedResult) -> dict[str, Any]:
    """The same for a guided slice."""
    return {"found": to_json(result.found), "target": result.target, "corpus": [data.hex() for data in result.corpus]}


def guided_from_json(value: dict[str, Any]) -> GuidedResult:
    """What `guided_to_json` was given; errors as above."""
    return GuidedResult(from_json(value["found"]), value["target"], tuple(bytes.fromhex(data) for data in value["corpus"]))


def merged_to_json(result: Merged) -> dict[str, Any]:
    """The same for a corpus that was made smaller."""
    return asdict(result)


def merged_from_json(value: dict[str, Any]) -> Merged:
    """What `merged_to_json` was given; errors as above."""
    return Merged(**value | {"dropped": tuple(value["dropped"])})


def replay_to_json(result: ReplayFound) -> dict[str, Any]:
    """The same for a slice of a replay."""
    return asdict(result)


def replay_from_json(value: dict[str, Any]) -> ReplayFound:
    """What `replay_to_json` was given; errors as above."""
    return ReplayFound(**value | {"replayed": [ReplayedCase(**each) for each in value["replayed"]]})


def _finding(value: dict[str, Any]) -> NewFinding:
    case = value["case"]
    return NewFinding(**value | {"bucket": NewBucket(**value["bucket"]), "case": NewCase(**case | {"data": bytes.fromhex(case["data"])})})
