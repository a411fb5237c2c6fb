"""What a sweep of one path found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from fuzzer.case import Case
from fuzzer.compare import Comparison
from fuzzer.sweep.outcomes import Outcome
from reference.image import Observation
from reference.linux.contract import Violation


@dataclass(frozen=True, slots=True)
class Divergence:
    """The first case of a path in which the core differs in these fields; `hits` counts all of them."""

    case: Case
    spec: Observation
    core: Observation
    comparison: Comparison
    hits: int


@dataclass(frozen=True, slots=True)
class Breach:
    """The first case of a path that breaks a promise at this place of the code; `hits` counts all of them."""

    case: Case
    violation: Violation
    hits: int


@dataclass(frozen=True, slots=True)
class PathResult:
    """What became of every event at every boundary of a path.

    `cells` has a row for each kind of event, by boundary. At depth 2 it also has rows `first+second`: the most remarkable outcome
    of a second event anywhere in what the first one opened. A path whose start is outside the model has no boundaries.
    """

    scenario: str
    profile: str
    cells: Mapping[str, tuple[Outcome, ...]]
    runs: int
    """Cases, the path without any event among them."""
    merged: int
    """Cases whose rest was known, so that the specification did not run it again."""
    contract_violations: int
    """Cases in which the entry code breaks its contract."""
    divergent: int
    """Cases in which the core differs from the specification."""
    breaches: tuple[Breach, ...]
    divergences: tuple[Divergence, ...]
    not_modelled: Counter[str]
    tolerated: Counter[str]

    @property
    def boundaries(self) -> int:
        """Boundaries of the path."""
        return max((len(row) for row in self.cells.values()), default=0)
