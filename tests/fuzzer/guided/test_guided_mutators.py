"""Mutator and crossover know what a case is: what they make is always a canonical case of the scope, and they reach every part of one."""

from __future__ import annotations

from random import Random

import pytest

from fuzzer.case import MAX_EVENTS, Case, decode, encode
from fuzzer.generate.generator import generate
from fuzzer.guided import changes
from fuzzer.guided.job import LONGEST
from fuzzer.guided.mutate import crossed, mutated
from fuzzer.guided.scope import Scope
from fuzzer.guided.splice import instructions, spliced, with_instructions
from fuzzer.targets.registry import TARGETS
from reference.image import Event, EventKind
from reference.profiles import PROFILES

ALL = tuple(PROFILES)
SCOPES = [Scope("linux4", ALL), Scope("snippets", ALL), Scope("snippets", ("amd",))]
IDS = ["linux4", "snippets", "snippets on amd"]


def walk(scope: Scope, steps: int, most: int = LONGEST) -> list[bytes]:
    """A chain of changes and crossings, each from what came before."""
    made = [encode(generate(1, scope.target, scope.profiles, number)) for number in range(5)]
    for seed in range(steps):
        rng = Random(seed)
        one, other = rng.choice(made), rng.choice(made)
        made.append(mutated(one, most, seed, scope) if seed % 3 else crossed(one, other, most, seed, scope))
    return made


@pytest.mark.parametrize("scope", SCOPES, ids=IDS)
def test_what_is_made_is_a_canonical_case_of_the_scope(scope: Scope) -> None:
    for data in walk(scope, 600):
        case = decode(data)
        assert encode(case) == data
        assert scope.fit(case) == case
        assert (case.target, case.profile in scope.profiles) == (scope.target, True)


@pytest.mark.parametrize("scope", SCOPES, ids=IDS)
def test_the_same_arguments_make_the_same_case(scope: Scope) -> None:
    assert walk(scope, 60) == walk(scope, 60)


@pytest.mark.parametrize("data", [b"", b"\0", b"\xff" * 40, bytes(range(256)), b"\1\0\0\1"], ids=range(5))
@pytest.mark.parametrize("scope", SCOPES, ids=IDS)
def test_any_bytes_can_be_changed_and_crossed(scope: Scope, data: bytes) -> None:
    for seed in range(20):
        for made in (mutated(data, LONGEST, seed, scope), crossed(data, data[::-1], LONGEST, seed, scope)):
            assert scope.fit(decode(made)) == decode(made)


@pytest.mark.parametrize("most", [3, 10, 60, 200])
def test_what_is_made_is_no_longer_than_asked_for(most: int) -> None:
    for scope in SCOPES:
        assert max(len(data) for data in walk(scope, 100, most)[5:]) <= most


@pytest.mark.parametrize("scope", SCOPES[:2], ids=IDS[:2])
def test_changes_reach_every_part_of_a_case(scope: Scope) -> None:
    cases = [decode(data) for data in walk(scope, 2500)]

    assert {case.scenario for case in cases} == {scenario.name for scenario in TARGETS[scope.target].scenarios}
    assert {case.profile for case in cases} == set(ALL)
    assert {name for case in cases for name, _ in case.registers} == set(changes.RULES)
    assert {piece.region for case in cases for piece in case.memory} == set(changes.REGIONS)
    assert {event.kind for case in cases for event in case.events} == set(EventKind)
    assert {len(case.events) for case in cases} == set(range(MAX_EVENTS + 1))


@pytest.mark.parametrize(("target", "change"), [(name, one) for name in ("linux4", "snippets") for _, one in changes.changes(name)])
def test_every_change_changes_something(target: str, change: changes.Change) -> None:
    scope = Scope(target, ALL)
    cases = [generate(3, target, ALL, number) for number in range(12)]

    assert any(change(Random(seed), case, scope) != case for case in cases for seed in range(5))


def test_an_event_that_moves_stays_the_event_that_it_was() -> None:
    case = Case("linux4", TARGETS["linux4"].scenarios[0].name, "intel", events=(Event(7, EventKind.NMI, 2),))

    moved = [changes.move_event(Random(seed), case, SCOPES[0]).events for seed in range(30)]

    assert all(len(events) == 1 and events[0].kind is EventKind.NMI for events in moved)
    assert len({events[0].boundary for events in moved}) > 3


def test_a_snippet_is_cut_between_its_instructions() -> None:
    scope = SCOPES[1]
    case, other = generate(1, "snippets", ALL, 3), generate(1, "snippets", ALL, 8)
    known = {*instructions(case), *instructions(other)}

    made = [spliced(Random(seed), case, other) for seed in range(40)]

    assert all(part in known for each in made for part in instructions(each))
    assert len({tuple(instructions(each)) for each in made}) > 10
    assert all(scope.fit(each) for each in made)


def test_the_instructions_that_are_put_in_are_those_that_are_read() -> None:
    case = generate(1, "snippets", ALL, 3)
    parts = [b"\x90", bytes.fromhex("0f01f8"), bytes.fromhex("48cf")]

    assert instructions(with_instructions(case, parts)) == parts


def test_bytes_of_another_target_become_a_case_of_this_one() -> None:
    data = encode(generate(1, "snippets", ALL, 3))

    case = SCOPES[0].read(data)

    assert case.target == "linux4"
    assert encode(decode(encode(case))) == encode(case)
