"""Every scenario of linux4 on the specification: which handler runs, on which stack, with whose GS and tables.

The expectations are those of Documentation/x86/entry_64.txt and linux-insides, Interrupts part 3, and of the architecture's tables.
"""

from __future__ import annotations

import pytest
from linux4_log import LINUX4, MODELLED, NOT_MODELLED, PROFILE_NAMES, SCENARIOS, logged

from fuzzer.targets import layout, tables
from reference.bits import AC, DF, IF, NT
from reference.image import REGISTER_INDEX, End
from reference.profiles import PROFILES
from reference.trace import trace

THREAD, IRQ, NMI, DEBUG = "thread", "irq", "nmi", "debug"

ON_THE_THREAD_STACK = {
    "divide-error": "do_divide_error",
    "overflow": "do_overflow",
    "bounds": "do_bounds",
    "invalid-opcode": "do_invalid_op",
    "invalid-op": "do_invalid_op",
    "device-not-available": "do_device_not_available",
    "coprocessor-segment-overrun": "do_coprocessor_segment_overrun",
    "invalid-tss": "do_invalid_TSS",
    "segment-not-present": "do_segment_not_present",
    "stack-segment": "do_stack_segment",
    "general-protection": "do_general_protection",
    "page-fault": "do_page_fault",
    "spurious-interrupt-bug": "do_spurious_interrupt_bug",
    "coprocessor-error": "do_coprocessor_error",
    "alignment-check": "do_alignment_check",
    "simd-coprocessor-error": "do_simd_coprocessor_error",
    "virtualization": "do_virtualization",
    "int-1": "do_general_protection",
    "debug-register-read": "do_general_protection",
    "debug-register-write": "do_general_protection",
    "int80": "do_int80_syscall_32",
    "system-call": "do_syscall_64",
}
"""What runs on the stack of the thread, wherever it comes from."""

ON_THE_INTERRUPT_STACK = {
    "interrupt": "do_IRQ",
    "first-vector": "do_IRQ",
    "array": "do_IRQ",
    "last-vector": "do_IRQ",
    "apic-timer": "smp_apic_timer_interrupt",
    "tlb-shootdown": "uv_bau_message_interrupt",
    "call-function-single": "smp_call_function_single_interrupt",
    "call-function": "smp_call_function_interrupt",
    "reschedule": "smp_reschedule_interrupt",
    "apic-error": "smp_error_interrupt",
    "apic-spurious": "smp_spurious_interrupt",
}

PARANOID = {
    "debug": ("do_debug", DEBUG),
    "breakpoint-register": ("do_debug", DEBUG),
    "icebp": ("do_debug", DEBUG),
    "int3": ("do_int3", DEBUG),
    "nmi": ("do_nmi", NMI),
    "mce": ("do_machine_check", "machine_check"),
}
"""The handler, and the stack it has when the kernel was interrupted: from user mode it leaves the IST stack."""

SPECIAL = {
    "system-call-from-user32": [("do_invalid_op", THREAD)],
    "sysenter-from-user32": [("do_fast_syscall_32", THREAD)],
    "system-call-flags-from-user32": [("do_invalid_op", THREAD)],
    "sysenter-flags-from-user32": [("do_fast_syscall_32", THREAD)],
    "system-call-negative-gs": [("do_syscall_64", THREAD)],
    "double-fault-from-user": [("do_double_fault", "double_fault")],
    "double-fault-from-kernel": [("do_double_fault", "double_fault")],
    "debug-in-syscall-gap": [("do_debug", DEBUG), ("do_syscall_64", THREAD)],
    "nmi-in-syscall-gap": [("do_nmi", NMI), ("do_syscall_64", THREAD)],
    "mce-in-syscall-gap": [("do_machine_check", "machine_check"), ("do_syscall_64", THREAD)],
    "nmi-in-syscall-gap-negative-gs": [("do_nmi", NMI), ("do_syscall_64", THREAD)],
    "interrupt-from-user-reschedule": [("do_IRQ", IRQ), ("schedule", THREAD)],
    "interrupt-from-kernel-reschedule": [("do_IRQ", IRQ), ("preempt_schedule_irq", THREAD)],
    "system-call-reschedule": [("do_syscall_64", THREAD), ("schedule", THREAD)],
    "int3-from-user-reschedule": [("do_int3", THREAD), ("schedule", THREAD)],
    "int3-from-kernel-reschedule": [("do_int3", DEBUG)],
    "page-fault-from-kernel-reschedule": [("do_page_fault", THREAD), ("preempt_schedule_irq", THREAD)],
    "nmi-from-user-reschedule": [("do_nmi", THREAD)],
    "nmi-from-kernel-reschedule": [("do_nmi", NMI)],
    "debug-nested-from-kernel": [("do_debug", DEBUG), ("do_int3", "debug-nested")],
    "int3-nested-from-kernel": [("do_int3", DEBUG), ("do_int3", "debug-nested")],
    "int3-nested-from-user": [("do_int3", THREAD), ("do_int3", DEBUG)],
    "nmi-nested-from-kernel": [("do_nmi", NMI), ("do_int3", DEBUG), ("do_nmi", NMI)],
    "nmi-nested-from-user": [("do_nmi", THREAD), ("do_int3", DEBUG), ("do_nmi", NMI)],
    "system-call-slow": [("do_syscall_64", THREAD)],
    "system-call-single-step": [("do_syscall_64", THREAD), ("do_debug", THREAD)],
    "system-call-at-the-edge": [("do_syscall_64", THREAD), ("do_general_protection", THREAD)],
    "bad-iret-not-present": [("do_int3", THREAD), ("do_segment_not_present", THREAD)],
    "bad-iret-protection": [("do_int3", THREAD), ("do_general_protection", THREAD)],
    "bad-iret-stack": [("do_int3", THREAD), ("do_stack_segment", THREAD)],
    "bad-iret-truncated": [("do_segment_not_present", THREAD)],
    "bad-gs-from-kernel": [("do_general_protection", THREAD)],
    "iret-to-16-bit-stack": [("do_int3", THREAD)],
}
BY_PROFILE = {
    ("system-call-from-user32", "amd"): [("do_fast_syscall_32", THREAD)],
    ("sysenter-from-user32", "amd"): [("do_invalid_op", THREAD)],
    ("system-call-flags-from-user32", "amd"): [("do_fast_syscall_32", THREAD)],
    ("sysenter-flags-from-user32", "amd"): [("do_invalid_op", THREAD)],
    ("system-call-negative-gs", "intel-2010"): [("do_invalid_op", THREAD)],
    ("nmi-in-syscall-gap-negative-gs", "intel-2010"): [("do_nmi", NMI), ("do_invalid_op", THREAD)],
}
"""AMD has SYSCALL in compatibility mode and no SYSENTER in long mode; without FSGSBASE, WRGSBASE is #UD."""


def expected(scenario: str, profile: str) -> list[tuple[str, str]]:
    """The calls that the documents promise."""
    if (scenario, profile) in BY_PROFILE:
        return BY_PROFILE[scenario, profile]
    if scenario in SPECIAL:
        return SPECIAL[scenario]
    name, _, origin = scenario.partition("-from-")
    name = name.removesuffix("-flags")
    if name in PARANOID:
        handler, ist = PARANOID[name]
        return [(handler, ist if origin == "kernel" else THREAD)]
    if name in ON_THE_INTERRUPT_STACK:
        return [(ON_THE_INTERRUPT_STACK[name], IRQ)]
    return [(ON_THE_THREAD_STACK[name], THREAD)]


@pytest.mark.parametrize("profile", PROFILE_NAMES)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_handlers_of_a_scenario_run_in_order_each_on_its_stack(scenario: str, profile: str) -> None:
    assert logged(scenario, profile).calls == expected(scenario, profile)


@pytest.mark.parametrize("profile", PROFILE_NAMES)
@pytest.mark.parametrize("scenario", MODELLED)
def test_a_scenario_ends(scenario: str, profile: str) -> None:
    assert logged(scenario, profile).observation.end is End.ENDED


@pytest.mark.parametrize("scenario", NOT_MODELLED)
def test_a_return_to_a_16_bit_stack_is_detected_and_outside_the_model(scenario: str) -> None:
    assert logged(scenario).observation.end is End.NOT_MODELLED
    assert any(step.registers[REGISTER_INDEX["rip"]] == LINUX4.symbols["native_irq_return_ldt"] for step in trace(logged(scenario).image))


@pytest.mark.parametrize("profile", PROFILE_NAMES)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_handler_has_the_kernels_gs_and_tables_and_clean_flags(scenario: str, profile: str) -> None:
    forbidden = DF | IF | (AC if PROFILES[profile].smap else 0)

    for record in logged(scenario, profile).records:
        assert record.words["gs_base"] == layout.PERCPU.start, record.handler
        assert record.words["cr3"] == tables.CR3, record.handler
        assert not record.words["rflags"] & forbidden, record.handler


@pytest.mark.parametrize("profile", PROFILE_NAMES)
@pytest.mark.parametrize("scenario", MODELLED)
def test_the_run_ends_with_gs_and_tables_where_it_began(scenario: str, profile: str) -> None:
    run = logged(scenario, profile)
    start, end = run.image.registers, run.observation.register

    moved = scenario == "bad-iret-truncated"  # begins behind the SWAPGS of the way out
    written = scenario.endswith("negative-gs") and PROFILES[profile].fsgsbase  # by user mode's WRGSBASE
    assert end("cr3") == start["cr3"]
    assert moved or end("kernel_gs_base") == (0 if scenario == "bad-gs-from-kernel" else start["kernel_gs_base"])
    assert written or end("gs_base") == start["gs_base"]


@pytest.mark.parametrize("profile", PROFILE_NAMES)
@pytest.mark.parametrize("scenario", [name for name in SCENARIOS if "-flags-from-" in name])
def test_the_interrupted_flags_come_back(scenario: str, profile: str) -> None:
    run = logged(scenario, profile)

    watched = DF | IF | AC | NT
    assert run.observation.register("rflags") & watched == run.image.registers["rflags"] & watched


@pytest.mark.parametrize("profile", PROFILE_NAMES)
def test_the_kernel_runs_on_other_tables_than_user_mode_only_where_it_isolates_them(profile: str) -> None:
    start = logged("int3-from-user", profile).image.registers["cr3"]

    assert start == (tables.USER_CR3 if profile == "intel-pti" else tables.CR3)
    assert logged("int3-from-kernel", profile).image.registers["cr3"] == tables.CR3


def test_a_scenario_for_every_origin_of_the_events_that_can_come_from_anywhere() -> None:
    for name in ("interrupt", "nmi", "mce", "debug", "int3", "divide-error", "general-protection", "page-fault", "segment-not-present"):
        assert {f"{name}-from-{origin}" for origin in ("user", "kernel", "user32")} <= SCENARIOS.keys()
