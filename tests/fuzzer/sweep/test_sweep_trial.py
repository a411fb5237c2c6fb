"""Sharing work changes nothing: a run that was continued from the middle, or ended early, says what a whole run says."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import pytest
from fuzzer_builders import linux4

from fuzzer.build import build
from fuzzer.case import Case, canonical
from fuzzer.sweep.events import KINDS, event_at, with_event
from fuzzer.sweep.outcomes import Outcome
from fuzzer.sweep.path import Path, record
from fuzzer.sweep.trial import Trial, trials
from fuzzer.targets import layout
from fuzzer.targets.registry import TARGETS
from fuzzer.targets.snippets import END
from fuzzer.targets.target import patch
from reference.image import Event
from reference.linux.contract import judge
from reference.run import run

LINUX4 = TARGETS["linux4"]
SCENARIOS = [scenario.name for scenario in LINUX4.scenarios]
CURSOR = struct.pack("<Q", layout.CONTROL.start).hex()
EVERY = 17
"""One boundary in so many is checked against a run of its own."""


def path_of(case: Case) -> Path:
    path = record(case, build(case), LINUX4.code)
    assert path is not None
    return path


def tried(case: Case, kind: str, boundaries: Sequence[int] | None = None) -> list[Trial | None]:
    """What becomes of an event at each boundary, the first one first."""
    path = path_of(case)
    return list(trials(path, kind, boundaries or path.boundaries[::-1], build))[::-1]


def outcomes(case: Case, kind: str) -> str:
    return "".join(trial.outcome.value if trial else "-" for trial in tried(case, kind))


def kernel_code(code: str, *events: Event) -> Case:
    """Kernel code with interrupts on, and the end of the run behind it."""
    place = layout.KERNEL_CODE
    patches = (patch(place, 0, bytes.fromhex(code) + END),)
    return canonical(Case("linux4", "nmi-from-kernel", "intel", (("rip", place.start),), patches, events))


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_recorded_path_ends_as_a_run_does(scenario: str) -> None:
    case = Case("linux4", scenario, "intel", events=LINUX4.scenario(scenario).events)

    assert path_of(case).observation == run(build(case))


@pytest.mark.parametrize("scenario", SCENARIOS[::4])
@pytest.mark.parametrize("kind", KINDS)
def test_a_trial_says_what_a_whole_run_says_of_machine_and_contract(scenario: str, kind: str) -> None:
    case = Case("linux4", scenario, "intel", events=LINUX4.scenario(scenario).events)
    assert LINUX4.code is not None

    for trial in tried(case, kind)[::EVERY]:
        if trial is not None:
            assert canonical(trial.case) == trial.case
            assert (trial.spec, trial.violations) == judge(trial.image, LINUX4.code)


def test_a_second_event_in_what_the_first_one_opens_says_what_a_whole_run_says() -> None:
    first = with_event(linux4("int3-from-user"), event_at("nmi", 100))

    for trial in tried(first, "nmi")[::EVERY]:
        if trial is not None:
            assert trial.spec == run(trial.image)


def test_an_event_whose_handler_leaves_no_trace_in_the_rest_is_merged() -> None:
    assert outcomes(kernel_code("90 90 90"), "nmi") == "mmmm"


def test_a_word_that_the_rest_reads_keeps_runs_apart() -> None:
    """`mov rax, [cursor]`: how many records the log has."""
    assert outcomes(kernel_code(f"90 48a1{CURSOR} 90"), "nmi") == "ddmm"


def test_a_word_that_the_rest_overwrites_first_does_not() -> None:
    """`mov [cursor], rax; mov rax, [cursor]`."""
    assert outcomes(kernel_code(f"90 48a3{CURSOR} 48a1{CURSOR}"), "nmi") == "mmdm"


def test_a_word_that_the_rest_overwrites_in_part_keeps_runs_apart() -> None:
    """`mov byte [cursor], al`."""
    assert outcomes(kernel_code(f"90 a2{CURSOR} 90"), "nmi") == "ddmm"


def test_words_that_stay_are_in_the_end_of_a_merged_run() -> None:
    """An interrupt in the kernel leaves its frame below RSP, and PUSH overwrites a part of it."""
    for trial in tried(kernel_code("90 50 90 50"), "interrupt"):
        assert trial is not None
        assert (trial.outcome, trial.spec) == (Outcome.MERGED, run(trial.image))


def test_an_interrupt_waits_while_interrupts_are_off() -> None:
    """CLI; NOP; STI, and the instruction behind it."""
    assert outcomes(kernel_code("fa 90 fb 90 90"), "interrupt") == "mwwwmm"


def test_an_interrupt_that_interrupts_never_let_in_is_never_taken() -> None:
    assert outcomes(kernel_code("fa 90"), "interrupt") == "muu"


def test_an_nmi_behind_sti_is_not_modelled() -> None:
    """Only where STI opens what was closed; the manual leaves this open."""
    assert outcomes(kernel_code("fa fb 90"), "nmi") == "mmnm"


def test_an_event_that_the_schedule_has_already_is_not_tried() -> None:
    assert tried(kernel_code("90 90", event_at("nmi", 1)), "nmi", [1]) == [None]


def test_an_interrupt_may_have_another_vector() -> None:
    (trial,) = tried(kernel_code("90"), "interrupt:0x2a", [0])

    assert trial is not None
    assert [delivery.vector for delivery in trial.spec.deliveries] == [0x2A]


def test_what_breaks_no_model_but_cannot_start_has_no_path() -> None:
    case = canonical(Case("snippets", "kernel", "intel", (("ss", 0x33),)))

    assert (record(case, build(case), None) is None) == (not run(build(case)).registers)
