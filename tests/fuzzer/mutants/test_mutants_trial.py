"""Trials and scores: what an arm finds, when it stops, and how the median of several seeds is told."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from random import Random

import pytest

from fuzzer.build import builder
from fuzzer.case import Case, decode, encode
from fuzzer.mutants.arms import ARMS
from fuzzer.mutants.catalogue import CONTROLS
from fuzzer.mutants.detect import Tried, broken_promise, divergence
from fuzzer.mutants.random_case import random_case
from fuzzer.mutants.score import SEEDS, score, trials
from fuzzer.mutants.survival import fatal
from fuzzer.mutants.trial import Result, Trial, run_trial
from fuzzer.targets.registry import TARGETS
from reference.image import End, Event, EventKind, Image, Observation
from reference.linux.contract import assumes
from reference.profiles import PROFILES

LINUX4 = TARGETS["linux4"]
ENOUGH = 30.0


@pytest.mark.parametrize("arm", ARMS)
@pytest.mark.parametrize("name", ["exit-without-swapgs", "core-keeps-if"])
def test_an_arm_finds_a_mutant_that_every_path_shows(arm: str, name: str) -> None:
    result = run_trial(Trial(name, arm, 1, ENOUGH))

    assert result.findings == 1
    assert result.cases < 200
    assert result.finding


def test_a_seed_means_the_same_cases() -> None:
    trial = Trial("error-entry-without-cld", "random", 7, ENOUGH)

    assert replace(run_trial(trial), seconds=0) == replace(run_trial(trial), seconds=0)


@pytest.mark.parametrize("control", CONTROLS)
def test_a_control_uses_its_whole_time_and_finds_nothing(control: str) -> None:
    result = run_trial(Trial(control, "random", 1, 0.3))

    assert (result.findings, result.finding) == (0, "")
    assert result.seconds >= 0.3


@pytest.mark.parametrize("seed", range(4))
def test_random_cases_are_what_the_contract_is_for(seed: int) -> None:
    """Nothing that a scenario does not bring itself is against what the contract assumes."""
    rng, build, code = Random(seed), builder(LINUX4), LINUX4.code
    assert code is not None

    for _ in range(100):
        case = random_case(rng, LINUX4, tuple(PROFILES))
        assert decode(encode(case)) == case
        assert assumes(build(case), code) == assumes(build(Case("linux4", case.scenario, case.profile)), code)


def test_the_sweep_runs_every_path_first_and_then_puts_events_in() -> None:
    paths = len(LINUX4.scenarios) * len(PROFILES)

    cases = [seen.case for seen in islice(ARMS["sweep"](Random(1), LINUX4, tuple(PROFILES)), paths + 10)]

    own = {scenario.name: scenario.events for scenario in LINUX4.scenarios}
    assert {(case.scenario, case.profile) for case in cases[:paths]} == {(name, profile) for name in own for profile in PROFILES}
    assert all(case.events == own[case.scenario] for case in cases[:paths])
    assert all(len(case.events) == len(own[case.scenario]) + 1 for case in cases[paths:])


# What counts as found

NMI, CHECK = Event(1, EventKind.NMI), Event(2, EventKind.MACHINE_CHECK, 18)
LATER_NMI, LATER_CHECK = replace(NMI, boundary=9), replace(CHECK, boundary=9)
PATH = Case("linux4", "divide-error-from-user", "intel")


def seen(case: Case, end: End) -> Tried:
    return Tried(case, builder(LINUX4)(case), Observation(end))


@pytest.mark.parametrize(
    ("case", "end", "finding"),
    [
        pytest.param(PATH, End.ENDED, "", id="ends"),
        pytest.param(PATH, End.NOT_MODELLED, "", id="not-modelled"),
        pytest.param(PATH, End.DID_NOT_END, "did-not-end", id="a-path-that-does-not-end"),
        pytest.param(replace(PATH, registers=(("rax", 1),)), End.DID_NOT_END, "", id="user-mode-faults-for-ever"),
        pytest.param(replace(PATH, events=(NMI, CHECK)), End.SHUTDOWN, "shutdown", id="shutdown"),
    ],
)
def test_a_run_that_is_lost_is_a_finding(case: Case, end: End, finding: str) -> None:
    assert broken_promise(seen(case, end)) == finding


class Says:
    """A core that observes the same thing every time."""

    name, version, delivers_events = "says", "0", False

    def __init__(self, observation: Observation) -> None:
        self._observation = observation

    def run(self, images: object) -> object:
        assert isinstance(images, list)
        return iter([self._observation] * len(images))

    def trace(self, image: Image) -> object:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("clean", "wrong", "finding"),
    [
        pytest.param(End.ENDED, End.ENDED, "", id="neither-differs"),
        pytest.param(End.ENDED, End.SHUTDOWN, "end", id="only-the-changed-core-differs"),
        pytest.param(End.SHUTDOWN, End.SHUTDOWN, "", id="the-engine-itself-differs"),
        pytest.param(End.UNSUPPORTED, End.SHUTDOWN, "", id="the-engine-itself-cannot-tell"),
    ],
)
def test_what_the_engine_itself_does_wrong_is_no_finding(clean: End, wrong: End, finding: str) -> None:
    look = divergence(Says(Observation(clean)), Says(Observation(wrong)))  # type: ignore[arg-type]

    assert look(seen(PATH, End.ENDED)) == finding


@pytest.mark.parametrize(
    ("events", "too_many"),
    [
        pytest.param((NMI, CHECK), (), id="one-of-each"),
        pytest.param((NMI, LATER_NMI), (), id="two-nmis"),
        pytest.param((CHECK, LATER_CHECK), (LATER_CHECK,), id="two-machine-checks"),
        pytest.param((NMI, CHECK, LATER_NMI), (LATER_NMI,), id="two-nmis-beside-a-machine-check"),
    ],
)
def test_neither_arm_sends_what_nothing_survives(events: tuple[Event, ...], too_many: tuple[Event, ...]) -> None:
    assert fatal(events) == set(too_many)


# The score


def results(arm: str, *cases: int) -> list[Result]:
    """A result for each seed: negative numbers are cases that found nothing."""
    return [
        Result(
            Trial("int3-gate-closed", arm, seed, 1.0), abs(number), abs(number) / 10, int(number > 0), "handler-stack" if number > 0 else ""
        )
        for seed, number in enumerate(cases)
    ]


def test_the_median_of_the_better_arm_stands_for_a_mutant() -> None:
    (row,) = score(["int3-gate-closed"], [*results("sweep", 30, 10, 20), *results("random", 2, 500, 90)])["mutants"]

    assert (row["found"], row["arm"], row["cases"], row["seconds"]) == (True, "sweep", 20, 2.0)


def test_a_mutant_that_most_seeds_miss_is_a_miss() -> None:
    report = score(["int3-gate-closed"], [*results("sweep", -99, 10, -99), *results("random", -9, -9, -9)])
    (row,) = report["mutants"]

    assert (report["found"], row["found"], row["arm"], row["cases"]) == (0, False, None, None)
    assert row["arms"]["sweep"]["seeds_that_found"] == 1


def test_findings_on_a_control_are_false_positives() -> None:
    alarms = [Result(Trial("clean-build", "sweep", 1, 1.0), 100, 1.0, 3, "gs-base (somewhere)")]

    report = score([], alarms)

    assert (report["false_positives"], report["false_positive_examples"], report["clean_cases"]) == (3, ["gs-base (somewhere)"], 100)


def test_every_arm_and_seed_is_tried_and_the_controls_always() -> None:
    work = trials(["int3-gate-closed"], 2.0, 5)

    assert {trial.mutant for trial in work} == {*CONTROLS, "int3-gate-closed"}
    assert {trial.seed for trial in work} == set(range(5, 5 + SEEDS))
    assert len(work) == len(set(work)) == 3 * len(ARMS) * SEEDS
