"""What the handlers of linux4 are given: pt_regs and the error code; and which way back the code takes."""

from __future__ import annotations

import pytest
from linux4_log import LINUX4, PROFILE_NAMES, SCENARIOS, logged

from fuzzer.targets import layout
from fuzzer.targets.linux4.image import SYSENTER_LANDING
from fuzzer.targets.linux4.user_code import LONG
from reference.image import REGISTER_INDEX
from reference.trace import trace

NO_SYSTEM_CALL = (1 << 64) - 1
"""ORIG_RAX of everything that is not a system call and not an interrupt (linux-insides, Interrupts part 3)."""
VECTORS = {"first-vector": 0x20, "array": 0x5A, "last-vector": 0xF4, "apic-timer": 0xEF, "tlb-shootdown": 0xF5, "apic-spurious": 0xFF}


def passes(scenario: str, symbol: str, profile: str = "intel") -> bool:
    """Whether a run comes by a label."""
    address = LINUX4.symbols[symbol]
    return any(step.registers[REGISTER_INDEX["rip"]] == address for step in trace(logged(scenario, profile).image))


@pytest.mark.parametrize("origin", ["user", "kernel"])
@pytest.mark.parametrize(("name", "vector"), VECTORS.items(), ids=VECTORS)
def test_an_interrupt_handler_learns_its_vector(name: str, vector: int, origin: str) -> None:
    (record,) = logged(f"{name}-from-{origin}").records

    assert record.frame["orig_rax"] == ~vector & NO_SYSTEM_CALL


@pytest.mark.parametrize(
    ("scenario", "error_code"),
    [
        pytest.param("divide-error-from-user", 0, id="none-is-0"),
        pytest.param("general-protection-from-user", 0xFFF8, id="the-selector"),
        pytest.param("segment-not-present-from-kernel", 0x68, id="the-selector-that-is-not-present"),
        pytest.param("int-1-from-user", 1 << 3 | 2, id="the-gate-of-int-1"),
        pytest.param("debug-register-read-from-user", 0, id="a-privileged-instruction"),
        pytest.param("invalid-tss-from-user", layout.TSS_SELECTOR, id="the-task-register"),
        pytest.param("page-fault-from-user", 0b100, id="a-read-by-user-mode"),
        pytest.param("page-fault-from-kernel", 0b000, id="a-read-by-the-kernel"),
        pytest.param("double-fault-from-user", 0, id="always-0"),
        pytest.param("alignment-check-from-user", 0, id="always-0-too"),
    ],
)
def test_an_exception_handler_gets_the_error_code_and_no_system_call(scenario: str, error_code: int) -> None:
    (record,) = logged(scenario).records

    assert record.words["error_code"] == error_code
    assert record.frame["orig_rax"] == NO_SYSTEM_CALL


@pytest.mark.parametrize("profile", PROFILE_NAMES)
@pytest.mark.parametrize("scenario", ["bad-iret-not-present", "bad-iret-protection", "bad-iret-stack", "bad-iret-truncated"])
def test_a_fault_of_the_iret_to_user_mode_looks_as_if_it_came_from_user_mode(scenario: str, profile: str) -> None:
    record = logged(scenario, profile).records[-1]

    assert record.stack == "thread"
    assert record.frame["cs"] & 3 == 3
    assert record.frame["rip"] == (LONG.start("ordinary") if scenario == "bad-iret-truncated" else LONG.start("int3") + 1)
    assert record.frame["rsp"] == layout.USER_STACK.end - 0x100


def test_a_fault_between_the_two_swapgs_is_reported_where_it_was() -> None:
    (record,) = logged("bad-gs-from-kernel").records

    assert record.frame["rip"] == LINUX4.symbols["gs_change"]
    assert record.frame["cs"] == layout.KERNEL_CS


@pytest.mark.parametrize("profile", PROFILE_NAMES)
def test_a_nested_nmi_makes_the_first_one_run_its_handler_again_with_the_outermost_frame(profile: str) -> None:
    first, _, again = logged("nmi-nested-from-kernel", profile).records

    assert again.frame == first.frame
    assert passes("nmi-nested-from-kernel", "repeat_nmi", profile)


@pytest.mark.parametrize("profile", PROFILE_NAMES)
def test_an_nmi_inside_a_user_nmi_is_a_new_one(profile: str) -> None:
    """The first one runs on the thread stack, so nothing of its frame is in the way."""
    first, _, second = logged("nmi-nested-from-user", profile).records

    assert first.frame["cs"] == layout.USER_CS
    assert second.frame["cs"] == layout.KERNEL_CS


@pytest.mark.parametrize("profile", PROFILE_NAMES)
@pytest.mark.parametrize(
    ("scenario", "fast"),
    [
        pytest.param("system-call-from-user", True, id="nothing-changed"),
        pytest.param("system-call-flags-from-user", True, id="flags-that-sysret-restores"),
        pytest.param("system-call-slow", False, id="rip-is-not-rcx"),
        pytest.param("system-call-single-step", False, id="tf"),
        pytest.param("system-call-at-the-edge", False, id="rcx-is-not-canonical"),
        pytest.param("system-call-reschedule", False, id="work-to-do"),
    ],
)
def test_sysret_is_used_where_it_restores_what_the_frame_says(scenario: str, fast: bool, profile: str) -> None:
    assert passes(scenario, "system_call_fast_return", profile) == fast


def test_sysenter_goes_on_at_the_landing_place_with_the_stack_in_ebp() -> None:
    (record,) = logged("sysenter-from-user32").records

    assert (record.frame["rip"], record.frame["cs"]) == (SYSENTER_LANDING, layout.USER32_CS)
    assert record.frame["rsp"] == record.frame["rbp"] == layout.USER_STACK.end - 0x100


def test_only_scenarios_named_for_an_event_have_one() -> None:
    """Faults are provoked by state; what arrives from outside is an interrupt, an NMI or a machine check."""
    kinds = {name: {event.kind.value for event in scenario.events} for name, scenario in SCENARIOS.items() if scenario.events}

    assert kinds["interrupt-from-user"] == {"interrupt"}
    assert kinds["nmi-nested-from-user"] == {"nmi"}
    assert kinds["mce-from-kernel"] == {"machine-check"}
    assert not any(name.startswith(("divide", "page", "system-call", "int3", "bad")) for name in kinds)
