"""Sweeps as they go into the database and come out: plain values, no storage rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from db.records import CampaignRow, SliceResult


@dataclass(frozen=True, slots=True)
class SweptPath:
    """One path, swept whole. `cells` has a string for each kind of event, one letter for each boundary."""

    number: int
    scenario: str
    profile: str
    start: str
    """The digest of what the path starts from."""
    boundaries: int
    cells: Mapping[str, str]
    runs: int
    merged: int
    contract_violations: int
    divergences: int
    seconds: float


@dataclass(frozen=True, slots=True)
class PathFound:
    """All that sweeping a path has to say: the path, and its findings as a slice of the same number."""

    path: SweptPath
    found: SliceResult

    @property
    def number(self) -> int:
        """The number of the path in its sweep."""
        return self.path.number

    @property
    def cases(self) -> int:
        """How many cases were run."""
        return self.found.cases


@dataclass(frozen=True, slots=True)
class SweepRow:
    """A stored sweep; `paths` is how many it has when it is whole."""

    id: int
    campaign: CampaignRow
    key: str
    paths: int


@dataclass(frozen=True, slots=True)
class SweepTotals:
    """The stored paths of one sweep, added up."""

    paths: int
    boundaries: int
    runs: int
    merged: int
    contract_violations: int
    divergences: int


def totals(paths: Sequence[SweptPath]) -> SweepTotals:
    """The sum of some paths."""
    return SweepTotals(
        paths=len(paths),
        boundaries=sum(path.boundaries for path in paths),
        runs=sum(path.runs for path in paths),
        merged=sum(path.merged for path in paths),
        contract_violations=sum(path.contract_violations for path in paths),
        divergences=sum(path.divergences for path in paths),
    )
