"""A run told one boundary at a time."""

from __future__ import annotations

import pytest
from reference_machine import KERNEL_CODE, KERNEL_DATA, UNMAPPED, image, interrupt, nmi

from reference.image import REGISTER_INDEX, End, Image, Step
from reference.run import run
from reference.trace import trace

RIP, RCX = REGISTER_INDEX["rip"], REGISTER_INDEX["rcx"]


@pytest.mark.parametrize(
    ("made", "end"),
    [
        pytest.param(image("90 90"), End.ENDED, id="ended"),
        pytest.param(image("0f0b"), End.ENDED, id="fault"),
        pytest.param(image("f4"), End.HALTED, id="halted"),
        pytest.param(image("ebfe", limit=9), End.DID_NOT_END, id="did-not-end"),
        pytest.param(image("90", idtr_limit=0), End.SHUTDOWN, id="shutdown"),
        pytest.param(image("0f31"), End.NOT_MODELLED, id="not-modelled"),
        pytest.param(image("f3aa", rcx=5, rdi=KERNEL_DATA, rflags=0x202, events=(interrupt(2),)), End.ENDED, id="event"),
    ],
)
def test_the_last_step_is_what_a_run_reports(made: Image, end: End) -> None:
    last, whole = list(trace(made))[-1], run(made)

    assert (last.end, whole.end) == (end, end)
    assert (last.registers, last.memory, last.detail, last.retired) == (whole.registers, whole.memory, whole.detail, whole.retired)


def test_the_first_step_is_the_start() -> None:
    first = next(iter(trace(image("90"))))

    assert (first.retired, first.registers[RIP], first.end) == (0, KERNEL_CODE, None)


def test_each_iteration_of_a_string_instruction_is_a_step() -> None:
    steps = list(trace(image("f3aa", rcx=3, rdi=KERNEL_DATA)))

    assert [step.registers[RCX] for step in steps] == [3, 2, 1, 0, 0]


def fields(step: Step) -> tuple[str, bool, list[int]]:
    return step.raised, step.asynchronous, [delivery.vector for delivery in step.delivered]


def test_a_step_tells_what_was_raised_and_what_was_delivered() -> None:
    steps = list(trace(image("90 f4", 3, events=(nmi(0),), handlers={2: "48cf"})))

    assert [fields(step) for step in steps] == [
        ("", False, []),
        ("", True, [2]),
        ("", False, []),
        ("", False, []),
        ("#GP(0x0)", False, [13]),
        ("", True, []),
    ]
    assert steps[4].rule == "SDM Vol. 2A, HLT: CPL is not 0"
    assert not any(step.at_fetch for step in steps)


def test_a_step_tells_an_exception_of_the_fetch_from_one_of_the_instruction() -> None:
    steps = list(trace(image(rip=UNMAPPED)))

    assert [step.at_fetch for step in steps if step.raised] == [True]


def test_an_initial_state_outside_the_model_has_no_steps() -> None:
    made = image("90", cs=0xFFF8)

    assert list(trace(made)) == []
    assert run(made).end is End.NOT_MODELLED
