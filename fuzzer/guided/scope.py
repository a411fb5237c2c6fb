"""What a guided slice may try: one target, some profiles. Whatever bytes come in, what comes out is a case of these."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from random import Random

from fuzzer.case import Case, canonical, decode
from fuzzer.generate.generator import GENERATORS
from fuzzer.targets.registry import TARGETS
from reference.profiles import PROFILES


@dataclass(frozen=True, slots=True)
class Scope:
    """A target that has a generator, and the profiles to run it on (at least one)."""

    target: str
    profiles: tuple[str, ...]

    def read(self, data: bytes) -> Case:
        """The case of this scope that any bytes mean: the bytes' own case, where it is one."""
        return self.fit(_decoded(data))

    def fit(self, case: Case) -> Case:
        """The case of this scope nearest to a canonical one; the case itself where it is of this scope."""
        if case.target == self.target and case.profile in self.profiles:
            return case
        return canonical(replace(case, target=self.target, scenario=self._scenario(case), profile=self._profile(case)))

    def _scenario(self, case: Case) -> str:
        if case.target == self.target:
            return case.scenario
        here, there = TARGETS[self.target].scenarios, TARGETS[case.target].scenarios
        return here[[scenario.name for scenario in there].index(case.scenario) % len(here)].name

    def _profile(self, case: Case) -> str:
        return case.profile if case.profile in self.profiles else _turn(self.profiles, tuple(PROFILES).index(case.profile))

    def fresh(self, rng: Random) -> Case:
        """A case that owes nothing to any other."""
        return GENERATORS[self.target](rng, rng.choice(self.profiles))


@lru_cache(maxsize=4096)
def _decoded(data: bytes) -> Case:
    """libFuzzer asks for changes of the same bytes again and again, and for a run of each that it was given."""
    return decode(data)


def _turn(choices: Sequence[str], number: int) -> str:
    return choices[number % len(choices)]
