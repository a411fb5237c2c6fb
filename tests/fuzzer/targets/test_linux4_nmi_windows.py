"""An NMI in the instructions of linux4 that are on an IST stack which the next event would use; and the windows that stay open."""

from __future__ import annotations

import pytest
from linux4_log import LINUX4, PROFILE_NAMES

from fuzzer.build import build
from fuzzer.case import Case, canonical
from reference.bits import FIXED, IF, TF
from reference.image import End, Event, EventKind, Observation
from reference.linux.contract import Violation, judge

STEPPED = (("rflags", FIXED | IF | TF),)
FIRST, INT3_RETURNED, LAST = 2, 265, 278
"""Boundaries of `nmi-nested-from-kernel` on `intel`: the first NMI, behind the return of the INT3 in its handler, its last IRETQ."""


def nmi(boundary: int) -> Event:
    return Event(boundary, EventKind.NMI, 2)


def machine_check(boundary: int) -> Event:
    return Event(boundary, EventKind.MACHINE_CHECK, 18)


def case(scenario: str, *events: Event, profile: str = "intel", registers: tuple[tuple[str, int], ...] = ()) -> Case:
    return canonical(Case("linux4", scenario, profile, registers, (), events))


def judged(tried: Case) -> tuple[Observation, tuple[Violation, ...]]:
    assert LINUX4.code is not None
    return judge(build(tried), LINUX4.code)


def broken(tried: Case) -> list[str]:
    return [violation.promise for violation in judged(tried)[1]]


@pytest.mark.parametrize("profile", PROFILE_NAMES)
@pytest.mark.parametrize("scenario", ["nmi-nested-from-user", "nmi-nested-from-kernel"])
def test_an_int3_in_an_nmi_leaves_the_debug_stack_that_the_nmi_found_in_use(scenario: str, profile: str) -> None:
    """TF brings #DB to its IST stack, and the NMI hits it before it has moved the slot, or left the stack."""
    for boundary in range(61):
        assert broken(case(scenario, nmi(boundary), profile=profile, registers=STEPPED)) == [], boundary


@pytest.mark.parametrize("second", [125, 130, 140, 200, 262, 270])
def test_the_debug_slot_is_back_where_it_was_however_often_the_nmi_repeats(second: int) -> None:
    """The first NMI hits #DB's second instruction, so the slot is moved while the INT3 in its handler opens the latch."""
    observation, violations = judged(case("nmi-nested-from-kernel", nmi(2), nmi(second), registers=STEPPED))

    assert [delivery.vector for delivery in observation.deliveries].count(2) == 2
    assert violations == ()


def test_an_nmi_in_a_machine_check_in_an_nmi_makes_the_first_one_repeat() -> None:
    """The machine check has interrupted the NMI's stack, whose return frame the nested NMI changes on purpose."""
    for boundary in range(INT3_RETURNED, LAST):
        observation, violations = judged(case("nmi-nested-from-kernel", nmi(FIRST), machine_check(boundary), nmi(boundary + 20)))

        assert [delivery.vector for delivery in observation.deliveries] == [2, 3, 18, 2], boundary
        assert violations == (), boundary


# Windows that docs/contract.md says are open: the contract tells, and is right to


def test_a_machine_check_before_the_nmi_has_copied_its_frame_opens_the_latch_too_early() -> None:
    assert "pt-regs" in broken(case("nmi-nested-from-kernel", nmi(FIRST), machine_check(FIRST + 5), nmi(60)))


def test_a_machine_check_at_the_last_iretq_hides_the_nmi_from_the_next_one() -> None:
    """Then neither the word `executing` nor RSP says that one is under way, and its return frame is overwritten: the run goes round."""
    observation, violations = judged(case("nmi-nested-from-kernel", nmi(FIRST), machine_check(LAST), nmi(LAST + 20)))

    assert LINUX4.symbols["nmi_return"] in {delivery.rip for delivery in observation.deliveries if delivery.vector == 18}
    assert "interrupted-stack" in {violation.promise for violation in violations}
    assert observation.end is End.DID_NOT_END
