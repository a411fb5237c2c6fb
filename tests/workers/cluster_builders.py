"""Campaigns of a cluster and results of slices, small enough for a test."""

from __future__ import annotations

from collections import Counter
from typing import Any

from sqlalchemy import Engine

from db.records import NewBucket, NewCampaign, NewCase, NewFinding, SliceResult
from workers.scheduler import start_cluster_campaign

SEED = 11
PROFILES = ("intel", "amd")


def a_cluster_campaign(engine: Engine, cases: int | None = 120, slice_cases: int = 40, **changes: Any) -> int:
    """The number of a campaign of `snippets`, planned and not begun."""
    fields: dict[str, Any] = {
        "targets": ("snippets",),
        "core": "unicorn",
        "core_version": "2.1.4",
        "profiles": PROFILES,
        "seed": SEED,
        "slice_cases": slice_cases,
        "arguments": {"cases": cases, "cores": ["unicorn"]},
    }
    return start_cluster_campaign(engine, NewCampaign(**fields | changes))


def a_result(number: int = 0, hits: int = 3) -> SliceResult:
    """What a slice has found: one bucket."""
    bucket = NewBucket("gs", "divergence", "gs", "unicorn", "intel", "engine", "SWAPGS", "rule", "expected", "observed", "title")
    case = NewCase(b"\x00\xff", "snippets", "user", "intel", "")
    finding = NewFinding(bucket, case, "2.1.4", {"gs_base": 2**64 - 1}, {"gs_base": 0}, ["gs_base", "ärger"])
    return SliceResult(number, 40, 0.5, Counter({"undefined": 2}), Counter({"af": 1}), 1, Counter({"gs": hits}), [finding])
