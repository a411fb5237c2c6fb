"""The run that says what happens in it is the run of the specification, and says different things of different runs."""

from __future__ import annotations

import pytest
from fuzzer_builders import ALL_PROFILES, linux4, nmi, snippet

from fuzzer.build import build
from fuzzer.compare import Difference
from fuzzer.generate.generator import generate
from fuzzer.guided.semantics import parting, run_noting
from reference.run import run


@pytest.mark.parametrize("target", ["linux4", "snippets"])
def test_it_observes_what_the_specification_observes(target: str) -> None:
    for number in range(120):
        image = build(generate(5, target, ALL_PROFILES, number))

        assert run_noting(image, set()) == run(image)


def noted(*args: object, **more: object) -> set[int]:
    numbers: set[int] = set()
    run_noting(build(snippet(*args, **more)), numbers)  # type: ignore[arg-type]
    return numbers


def test_the_same_run_says_the_same() -> None:
    assert noted("0f01f8") == noted("0f01f8")


@pytest.mark.parametrize(
    ("code", "more"),
    [
        pytest.param("90", {}, id="another-instruction"),
        pytest.param("0f01f8", {"scenario": "kernel-user-gs"}, id="another-gs"),
        pytest.param("0f01f8", {"scenario": "user"}, id="another-privilege-level"),
        pytest.param("0f01f8", {"events": [nmi(1)]}, id="an-event"),
    ],
)
def test_another_step_is_something_new(code: str, more: dict[str, object]) -> None:
    assert noted(code, **more) - noted("0f01f8")


def test_another_value_is_nothing_new() -> None:
    assert noted("90", rax=1) == noted("90", rax=2)


def test_each_boundary_that_an_event_arrives_at_in_entry_code_is_something_new() -> None:
    seen: list[set[int]] = []
    for boundary in (3, 4, 5):
        numbers: set[int] = set()
        run_noting(build(linux4("system-call-from-user", nmi(boundary))), numbers)
        seen.append(numbers)

    assert seen[0] - seen[1]
    assert seen[1] - seen[2]


def test_a_difference_is_told_by_its_fields_and_not_by_its_values() -> None:
    one, same, other = Difference("rax", 1, 2), Difference("rax", 3, 4), Difference("rbx", 1, 2)

    assert parting(0, [one], "") == parting(0, [same], "")
    assert len({parting(0, [one], ""), parting(0, [other], ""), parting(1, [one], ""), parting(0, [one], "x")}) == 4
