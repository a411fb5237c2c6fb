"""Violations of the contract become findings: grouped by promise and place, and none on the clean target."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fuzzer.breach import AREAS, instruction_at, of_violation, place
from fuzzer.build import build
from fuzzer.case import Case
from fuzzer.signature import AREAS as KNOWN_AREAS
from fuzzer.targets.registry import TARGETS
from reference.image import Event, EventKind, Image
from reference.linux.contract import PROMISES, Violation, judge
from reference.linux.entry_code import EntryCode

LINUX = TARGETS["linux4"]


def code() -> EntryCode:
    assert LINUX.code is not None
    return LINUX.code


def image(scenario: str, profile: str = "intel", *events: Event) -> Image:
    return build(Case("linux4", scenario, profile, events=events))


def signature(promise: str = "gs-base", rip: int = 0, text: str = "", scenario: str = "int3-from-user") -> str:
    return of_violation(Violation(promise, 3, rip or LINUX.symbols["int3"], text), image(scenario), code()).text


def test_values_boundaries_and_scenarios_do_not_tell_signatures_apart() -> None:
    at = LINUX.symbols["int3"] + 2

    assert signature(rip=at, text="GS.base is 0x1") == signature(rip=at, text="GS.base is 0x2", scenario="int3-from-kernel")


def test_promise_and_place_do() -> None:
    at = LINUX.symbols["int3"]

    assert len({signature("gs-base", at), signature("gs-base", at + 2), signature("gs-restored", at)}) == 3


def test_a_signature_names_the_promise_the_instruction_and_its_label() -> None:
    found = of_violation(Violation("gs-base", 3, LINUX.symbols["int3"], "GS.base is 0x1"), image("int3-from-user"), code())

    assert (found.core, found.kind, found.area, found.by) == ("spec", "contract", "gs", "entry code")
    assert found.cause.endswith(" at int3")
    assert found.expected == "gs-base"
    assert found.rule.startswith("While a C handler runs, GS.base is this CPU's per-CPU base")
    assert found.title == f"{found.cause}: expected gs-base, observed broken"


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        pytest.param(0x1000, "first", id="at-a-label"),
        pytest.param(0x1FFF, "first+0xfff", id="behind-it"),
        pytest.param(0x2000, "user code", id="too-far-behind"),
        pytest.param(0xFFF, "user code", id="before-all-labels"),
        pytest.param(0xFFFF_FFFF_9000_0000, "0xffffffff90000000", id="kernel-without-labels"),
    ],
)
def test_a_place_is_a_label_and_a_distance(address: int, expected: str) -> None:
    assert place(address, {"first": 0x1000, "later": 0x8000}) == expected


def test_what_is_not_mapped_has_no_instruction() -> None:
    assert instruction_at(image("int3-from-user"), 0x1234, code().kernel_cr3) == "fetch"


def test_areas_are_known_ones_and_hold_known_promises() -> None:
    names = [name for group in AREAS.values() for name in group]

    assert set(AREAS) <= set(KNOWN_AREAS)
    assert len(set(names)) == len(names)
    assert set(names) <= {promise.name for promise in PROMISES}


# The clean target


@pytest.mark.parametrize("profile", ["intel", "amd", "intel-2012"])
@pytest.mark.parametrize("scenario", [scenario.name for scenario in LINUX.scenarios])
def test_the_clean_target_keeps_the_contract_on_every_path(scenario: str, profile: str) -> None:
    assert judge(image(scenario, profile), code())[1] == ()


@pytest.mark.parametrize("scenario", ["system-call-from-user", "int3-from-kernel", "nmi-from-kernel"])
def test_it_keeps_it_with_an_nmi_at_every_boundary(scenario: str) -> None:
    length = judge(image(scenario), code())[0].retired
    for boundary in range(length):
        assert judge(image(scenario, "intel", Event(boundary, EventKind.NMI)), code())[1] == (), boundary


def test_a_target_whose_per_cpu_base_is_another_breaks_it() -> None:
    """The same run judged for another kernel."""
    _, violations = judge(image("int3-from-user"), replace(code(), percpu=0xFFFF_8880_0000_0000))

    assert {violation.promise for violation in violations} == {"gs-base"}
