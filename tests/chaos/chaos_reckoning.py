"""What a campaign has in the database, as numbers that add up: two campaigns of the same cases must be equal in all of them."""

from __future__ import annotations

from collections import Counter

from sqlalchemy import Engine, select

from db.models import Bucket, BucketHits, Slice
from db.transactions import reading

FINDINGS = ("divergence", "crash", "hang")
Reckoning = Counter[tuple[int, str, str]]
"""(number of the slice, what is counted, which) -> how many."""


def reckon(engine: Engine, campaign: int) -> Reckoning:
    """Everything that the slices of a campaign counted, slice by slice."""
    found: Reckoning = Counter()
    slices = select(Slice.number, Slice.cases, Slice.crashes, Slice.not_modelled, Slice.tolerated).where(Slice.campaign_id == campaign)
    hits = select(Slice.number, Bucket.kind, Bucket.id, BucketHits.hits).join_from(BucketHits, Slice).join(Bucket)
    with reading(engine) as connection:
        for number, cases, crashes, not_modelled, tolerated in connection.execute(slices):
            found.update({(number, "slice", ""): 1, (number, "cases", ""): cases, (number, "crashes", ""): crashes})
            found.update({(number, "not modelled", name): count for name, count in not_modelled.items()})
            found.update({(number, "tolerated", name): count for name, count in tolerated.items()})
        for number, kind, bucket, count in connection.execute(hits.where(Slice.campaign_id == campaign)):
            found[number, kind, bucket] += count
    return found


def missing(expected: Reckoning, found: Reckoning) -> int:
    """How much of what was expected is not there. The other way round: how much there is too much."""
    return (expected - found).total()


def bucket_names(reckoning: Reckoning) -> set[str]:
    """The buckets that were hit."""
    return {which for _, what, which in reckoning if what in FINDINGS}
