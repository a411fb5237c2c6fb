"""What goes into the database and what comes out: plain values, no storage rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any

# Whatever `json.dumps` takes.
Json = Any

KINDS = ("divergence", "crash", "hang", "contract")
"""What a bucket can be."""


def bucket_id(signature: str) -> str:
    """The short name of a signature, the same everywhere and always: 12 hex digits."""
    return sha256(signature.encode()).hexdigest()[:12]


def case_digest(data: bytes) -> str:
    """The address of a case: the SHA-256 of its bytes, in hex."""
    return sha256(data).hexdigest()


@dataclass(frozen=True, slots=True)
class NewCampaign:
    """A campaign about to start."""

    targets: Sequence[str]
    core: str
    core_version: str
    profiles: Sequence[str]
    seed: int
    slice_cases: int
    arguments: Mapping[str, Json]


@dataclass(frozen=True, slots=True)
class NewBucket:
    """What all findings of one signature have in common."""

    signature: str
    kind: str
    area: str
    core: str
    profile: str
    by: str
    cause: str
    rule: str
    expected: str
    observed: str
    title: str

    @property
    def id(self) -> str:
        """The name it will be stored under."""
        return bucket_id(self.signature)


@dataclass(frozen=True, slots=True)
class NewCase:
    """The bytes of a case and what they decode to."""

    data: bytes
    target: str
    scenario: str
    profile: str
    instance: str

    @property
    def digest(self) -> str:
        """The name it will be stored under."""
        return case_digest(self.data)


@dataclass(frozen=True, slots=True)
class NewFinding:
    """One example: the case, the bucket it belongs to, and what both sides said."""

    bucket: NewBucket
    case: NewCase
    core_version: str
    spec: Json
    observed: Json
    differences: Json


@dataclass(frozen=True, slots=True)
class SliceResult:
    """All a finished slice has to say. Every signature in `hits` comes with at least one finding, and the reverse."""

    number: int
    cases: int
    seconds: float
    not_modelled: Mapping[str, int]
    tolerated: Mapping[str, int]
    crashes: int
    hits: Mapping[str, int]
    findings: Sequence[NewFinding]

    def __post_init__(self) -> None:
        # A hit without a finding could lean on a bucket another slice stores, or does not: that would be a race.
        described = {finding.bucket.signature for finding in self.findings}
        for signature in sorted(described ^ self.hits.keys()):
            missing = "finding" if signature in self.hits else "hit"
            raise ValueError(f"slice {self.number}: signature {signature!r} has no {missing}")
        for signature, count in self.hits.items():
            if count < 1:
                raise ValueError(f"slice {self.number}: signature {signature!r} has {count} hits")


@dataclass(frozen=True, slots=True)
class BucketRow:
    """A stored bucket. `hits` is exact; `findings` counts the examples that were kept."""

    id: str
    signature: str
    kind: str
    area: str
    core: str
    profile: str
    by: str
    cause: str
    rule: str
    expected: str
    observed: str
    title: str
    status: str
    first_seen: datetime
    last_seen: datetime
    hits: int
    findings: int
    targets: tuple[str, ...]
    verdict: str | None = None
    """Who is wrong, by the last vote; None where nobody has voted."""
    fixed_version: str | None = None
    """The version of the core that did not show it any more, also after it has come back; None where there was none yet."""
    fixed_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class CaseRow:
    """A stored case."""

    digest: str
    data: bytes
    target: str
    scenario: str
    profile: str
    instance: str


@dataclass(frozen=True, slots=True)
class FindingRow:
    """A stored example, with the case to run it again."""

    id: int
    bucket_id: str
    case: CaseRow
    core: str
    core_version: str
    campaign_id: int
    spec: Json
    observed: Json
    differences: Json
    found_at: datetime


@dataclass(frozen=True, slots=True)
class CampaignRow:
    """A stored campaign; `finished_at` is None while it runs."""

    id: int
    created_at: datetime
    finished_at: datetime | None
    targets: tuple[str, ...]
    core: str
    core_version: str
    profiles: tuple[str, ...]
    seed: int
    slice_cases: int
    arguments: Mapping[str, Json]


@dataclass(frozen=True, slots=True)
class CampaignTotals:
    """The slices of one campaign, added up."""

    slices: int
    cases: int
    seconds: float
    not_modelled: Mapping[str, int]
    tolerated: Mapping[str, int]
    crashes: int
