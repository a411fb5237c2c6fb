"""Records in which a test names only what it is about."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from db.records import NewBucket, NewCampaign, NewCase, NewFinding, SliceResult


def a_campaign(**changes: Any) -> NewCampaign:
    fields = {
        "targets": ["linux4"],
        "core": "unicorn",
        "core_version": "2.1.4",
        "profiles": ["intel"],
        "seed": 7,
        "slice_cases": 1000,
        "arguments": {"events": ["nmi"]},
    }
    return NewCampaign(**{**fields, **changes})


def a_bucket(signature: str = "swapgs/gs_base", **changes: Any) -> NewBucket:
    fields = {
        "signature": signature,
        "kind": "divergence",
        "area": "gs",
        "core": "unicorn",
        "profile": "intel",
        "by": "engine",
        "cause": "SWAPGS",
        "rule": "SDM Vol. 2B, SWAPGS",
        "expected": "GS.base exchanged",
        "observed": "GS.base kept",
        "title": "SWAPGS keeps GS.base",
    }
    return NewBucket(**{**fields, **changes})


def a_case(data: bytes = b"\x01", **changes: Any) -> NewCase:
    fields = {"data": data, "target": "linux4", "scenario": "int3-from-user", "profile": "intel", "instance": "int3 at k=0"}
    return NewCase(**{**fields, **changes})


def a_finding(signature: str = "swapgs/gs_base", data: bytes = b"\x01", **changes: Any) -> NewFinding:
    fields = {
        "bucket": a_bucket(signature),
        "case": a_case(data),
        "core_version": "2.1.4",
        "spec": {"gs_base": 2**64 - 4096},
        "observed": {"gs_base": 0},
        "differences": ["gs_base"],
    }
    return NewFinding(**{**fields, **changes})


def a_slice(number: int = 0, findings: Sequence[NewFinding] = (), hits: Mapping[str, int] | None = None, **changes: Any) -> SliceResult:
    """A slice in which every finding was hit once, unless `hits` says how often."""
    fields: dict[str, Any] = {
        "number": number,
        "cases": 1000,
        "seconds": 2.0,
        "not_modelled": {},
        "tolerated": {},
        "crashes": 0,
        "hits": dict(Counter(finding.bucket.signature for finding in findings)) if hits is None else hits,
        "findings": findings,
    }
    return SliceResult(**{**fields, **changes})
