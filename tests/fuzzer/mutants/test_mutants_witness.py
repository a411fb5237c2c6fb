"""Every mutant can be seen: its witness shows it, and shows nothing on the clean build."""

from __future__ import annotations

import pytest

from fuzzer.build import builder
from fuzzer.case import Case
from fuzzer.mutants.arms import tried
from fuzzer.mutants.catalogue import CONTROLS, MUTANTS
from fuzzer.mutants.code import EditError, Place
from fuzzer.mutants.mutant import Kind, Mutant
from fuzzer.mutants.proof import seen_by_witness
from fuzzer.mutants.trial import look_of, target_of
from fuzzer.mutants.witness import Arrival, Witness
from fuzzer.targets.registry import TARGETS
from reference.image import EventKind
from reference.profiles import PROFILES

LINUX4 = TARGETS["linux4"]
ALL = pytest.mark.parametrize("mutant", MUTANTS.values(), ids=MUTANTS)
ARRIVAL_ONLY = [mutant for mutant in MUTANTS.values() if mutant.arrival_only]


def test_there_are_mutants_of_every_kind() -> None:
    assert len(MUTANTS) >= 20
    assert {mutant.kind for mutant in MUTANTS.values()} == set(Kind)
    assert not MUTANTS.keys() & CONTROLS.keys()


@ALL
def test_a_witness_shows_its_mutant_and_nothing_on_the_clean_build(mutant: Mutant) -> None:
    assert seen_by_witness(mutant)


@ALL
def test_a_mutant_has_a_story_with_a_source(mutant: Mutant) -> None:
    assert mutant.story
    assert mutant.source
    assert (mutant.core is None) == bool(mutant.changes)


@pytest.mark.parametrize("control", CONTROLS.values(), ids=CONTROLS)
def test_a_witness_shows_nothing_on_a_control(control: Mutant) -> None:
    assert not seen_by_witness(control)


def test_some_mutants_only_arrival_points_can_show() -> None:
    assert ARRIVAL_ONLY


@pytest.mark.parametrize("mutant", ARRIVAL_ONLY, ids=lambda mutant: mutant.name)
def test_where_only_arrival_points_can_show_it_every_path_as_it_is_keeps_the_contract(mutant: Mutant) -> None:
    target, look = target_of(mutant), look_of(mutant)
    build = builder(target)
    paths = [Case(target.name, scenario.name, profile, events=scenario.events) for scenario in target.scenarios for profile in PROFILES]

    assert [look(tried(target, case, build(case))) for case in paths] == [""] * len(paths)


def test_an_arrival_stands_where_its_instruction_begins() -> None:
    """SYSCALL is the first instruction, so its entry begins at boundary 1."""
    witness = Witness("system-call-from-user", (Arrival(EventKind.NMI, Place("system_call", "swapgs")),))

    assert [event.boundary for event in witness.case(LINUX4).events] == [1]


def test_an_arrival_that_is_never_reached_is_told() -> None:
    witness = Witness("system-call-from-user", (Arrival(EventKind.NMI, Place("nmi", "swapgs")),))

    with pytest.raises(EditError, match="system-call-from-user does not reach nmi: swapgs 1 times"):
        witness.case(LINUX4)
