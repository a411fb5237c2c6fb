"""Between two instructions: which event is taken first, what is held, and what a latch loses (SDM Vol. 3A, 7.7 to 7.9)."""

from __future__ import annotations

import pytest
from reference_machine import KERNEL_CODE, KERNEL_DS, frame, gate, handler, interrupt, machine_check, nmi, outcome, outcomes, run

from reference.image import End

IF, TF = 0x200, 0x100
IRETQ, HLT, NOP = "48cf", "f4", "90"
MOV_SS = "8ed0"


@pytest.mark.parametrize("boundary", range(4))
def test_an_event_arrives_after_so_many_retired_instructions(boundary: int) -> None:
    ended = run(NOP * 4, rflags=IF, events=(interrupt(boundary),))

    assert frame(ended).rip == KERNEL_CODE + boundary
    assert [(delivery.boundary, delivery.rip) for delivery in ended.deliveries] == [(boundary, KERNEL_CODE + boundary)]


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        pytest.param((machine_check(1), nmi(1)), "#MC", id="machine-check-before-nmi"),
        pytest.param((nmi(1), interrupt(1)), "NMI", id="nmi-before-interrupt"),
        pytest.param((interrupt(1, 0x31), interrupt(1, 0xE2), interrupt(1, 0x72)), "vector 0xe2", id="highest-vector-first"),
    ],
)
def test_the_event_of_highest_priority_is_taken_first(events: tuple[object, ...], expected: str) -> None:
    for order in (events, events[::-1]):
        assert outcome(run(NOP * 4, rflags=IF, events=order)) == expected


@pytest.mark.parametrize("event", [nmi(1), interrupt(1)])
def test_a_debug_trap_comes_before_nmi_and_interrupts(event: object) -> None:
    assert outcome(run(NOP * 4, rflags=IF | TF, events=(event,))) == "#DB"


def test_a_debug_trap_comes_before_the_next_instructions_faults() -> None:
    assert outcome(run("90 0f0b", rflags=TF)) == "#DB"


def test_an_nmi_waits_behind_the_debug_trap_and_is_taken_in_its_handler() -> None:
    ended = run(NOP * 4, rflags=TF, events=(nmi(1),))

    assert outcomes(ended) == ["#DB", "NMI"]
    assert frame(ended).rip == handler(1)


def test_an_external_event_comes_before_the_fault_of_the_next_instruction() -> None:
    assert outcome(run("0f0b", rflags=IF, events=(interrupt(0),))) == "vector 0x72"


def test_interrupts_wait_for_if_and_nmi_does_not() -> None:
    assert outcome(run(NOP * 4, events=(interrupt(0),))) == "ended"
    assert outcome(run(NOP * 4, events=(nmi(0),))) == "NMI"


def test_an_interrupt_is_taken_when_iret_restores_if() -> None:
    ended = run("0f0b", rflags=IF, events=(interrupt(1),), handlers={6: NOP + IRETQ})

    assert outcomes(ended) == ["#UD", "vector 0x72"]
    assert frame(ended).rip == KERNEL_CODE


def test_sti_holds_interrupts_for_one_instruction() -> None:
    ended = run("fb 90 90", events=(interrupt(0),))

    assert frame(ended).rip == KERNEL_CODE + 2


def test_sti_holds_nothing_if_interrupts_were_enabled() -> None:
    ended = run("fb 90 90", rflags=IF, events=(interrupt(1),))

    assert frame(ended).rip == KERNEL_CODE + 1


def test_sti_holds_no_debug_trap() -> None:
    ended = run("fb 90 90", rflags=TF)

    assert (outcome(ended), frame(ended).rip) == ("#DB", KERNEL_CODE + 1)


def test_cli_right_after_sti_lets_no_interrupt_in() -> None:
    assert outcome(run("fb fa 90", events=(interrupt(0),))) == "ended"


def test_popf_holds_no_interrupt() -> None:
    ended = run("6800020000 9d 90", events=(interrupt(0),))  # push 0x200; popf

    assert frame(ended).rip == KERNEL_CODE + 6


@pytest.mark.parametrize("event", [pytest.param(nmi(1), id="nmi"), pytest.param(interrupt(1), id="interrupt")])
def test_a_load_of_ss_holds_events_for_one_instruction(event: object) -> None:
    ended = run(MOV_SS + "90 90", rax=KERNEL_DS, rflags=IF, events=(event,))

    assert frame(ended).rip == KERNEL_CODE + 3


def test_a_load_of_ss_does_not_hold_a_machine_check() -> None:
    ended = run(MOV_SS + "90 90", rax=KERNEL_DS, events=(machine_check(1),))

    assert frame(ended).rip == KERNEL_CODE + 2


def test_lss_holds_nothing() -> None:
    # lss eax, [rsp]
    ended = run("0fb20424 90", rflags=IF, events=(interrupt(1),), memory={0xFFFF_8880_0002_1000: b"\0\0\0\0\x18\0"})

    assert frame(ended).rip == KERNEL_CODE + 4


@pytest.mark.parametrize(
    ("code", "parts"),
    [
        pytest.param(MOV_SS * 2 + "90", {"rflags": IF, "events": (interrupt(1),)}, id="interrupt-after-two-loads-of-ss"),
        pytest.param(MOV_SS * 2 + "90", {"rflags": TF}, id="single-step-after-two-loads-of-ss"),
        pytest.param(MOV_SS * 2 + "90", {"dr7": 0x402, "dr0": 1}, id="breakpoint-after-two-loads-of-ss"),
        pytest.param("fb 90", {"events": (nmi(1),)}, id="nmi-after-sti"),
        pytest.param("90 90", {"events": (machine_check(1),), "rflags": TF}, id="machine-check-with-single-step"),
        pytest.param("90 90", {"events": (interrupt(1),), "rflags": IF, "cr8": 7}, id="interrupt-at-the-task-priority"),
    ],
)
def test_what_the_manual_leaves_open_is_not_modelled(code: str, parts: dict[str, object]) -> None:
    assert outcome(run(code, rax=KERNEL_DS, **parts)).startswith("not modelled: ")


def test_an_interrupt_above_the_task_priority_is_taken() -> None:
    assert outcome(run("90 90", rflags=IF, cr8=6, events=(interrupt(1, 0x72),))) == "vector 0x72"


def test_two_loads_of_ss_with_nothing_pending_are_ordinary() -> None:
    assert outcome(run(MOV_SS * 2 + "90", rax=KERNEL_DS)) == "ended"


def test_an_nmi_after_sti_is_taken_where_nmis_are_blocked_anyway_only_after_iret() -> None:
    ended = run("90", events=(nmi(0), nmi(1)), handlers={2: "fb 90" + IRETQ})

    assert [(delivery.vector, delivery.rip) for delivery in ended.deliveries] == [(2, KERNEL_CODE), (2, KERNEL_CODE)]


def test_an_nmi_waits_for_iret_and_a_second_one_is_lost() -> None:
    # The handler runs twice: rax counts.
    ended = run("90" * 8, events=(nmi(0), nmi(1), nmi(1), nmi(2)), handlers={2: "48ffc0" + NOP * 3 + IRETQ})

    assert outcomes(ended) == ["NMI", "NMI"]
    assert ended.register("rax") == 2


def test_iret_unblocks_nmis_even_if_it_faults() -> None:
    # The handler pops the return address, so that IRET finds no code selector.
    ended = run("90", events=(nmi(0), nmi(1)), handlers={2: "58 " + IRETQ, 13: "90 cdf1"})

    assert outcomes(ended) == ["NMI", "#GP", "NMI", "#GP"]
    assert [delivery.rip for delivery in ended.deliveries][1:3] == [handler(2) + 1, handler(13)]


def test_a_second_interrupt_of_one_vector_is_lost_while_one_waits() -> None:
    parts = {"handlers": {0x72: "48ffc0" + IRETQ, 0x73: "48ffc3" + IRETQ}}

    ended = run("90 fb 90 90 90", events=(interrupt(0), interrupt(1), interrupt(1, 0x73)), **parts)

    assert [ended.register("rax"), ended.register("rbx")] == [1, 1]


def test_a_machine_check_with_mce_clear_shuts_down() -> None:
    assert run("90", cr4=0x20, events=(machine_check(0),)).end is End.SHUTDOWN


def test_a_second_machine_check_while_mcip_is_set_shuts_down() -> None:
    ended = run("90", events=(machine_check(0), machine_check(1)), handlers={18: NOP * 4})

    assert (ended.end, outcomes(ended)) == (End.SHUTDOWN, ["#MC"])


@pytest.mark.parametrize("event", [interrupt(1), nmi(1), machine_check(1)])
def test_hlt_waits_for_an_event(event: object) -> None:
    ended = run(HLT + "90", rflags=IF, events=(event,))

    assert (ended.end, frame(ended).rip) == (End.ENDED, KERNEL_CODE + 1)


def test_hlt_is_left_for_a_debug_trap() -> None:
    ended = run(HLT + "90", rflags=TF)

    assert (ended.end, outcome(ended), frame(ended).rip) == (End.ENDED, "#DB", KERNEL_CODE + 1)


@pytest.mark.parametrize("events", [(), (interrupt(0),), (nmi(5),)])
def test_hlt_without_an_event_that_may_be_taken_stops(events: tuple[object, ...]) -> None:
    assert run(HLT, events=events).end is End.HALTED


def test_sti_hlt_waits_with_interrupts_enabled() -> None:
    ended = run("fb f4 90", events=(interrupt(0),))

    assert frame(ended).rip == KERNEL_CODE + 2


def test_an_event_between_two_iterations_pushes_rf_and_the_string_instruction_goes_on() -> None:
    # rep stosb
    parts = {"rcx": 4, "rdi": 0xFFFF_8880_0001_0000, "rax": 7, "rflags": IF}

    ended = run("f3aa 90", events=(interrupt(2),), **parts)
    resumed = run("f3aa 90", events=(interrupt(2),), handlers={0x72: IRETQ}, **parts)

    assert (frame(ended).rip, frame(ended).rflags) == (KERNEL_CODE, 0x1_0000 | IF | 2)
    assert [ended.register("rcx"), resumed.register("rcx"), resumed.register("rdi")] == [2, 0, parts["rdi"] + 4]


def test_an_event_after_the_last_iteration_pushes_no_rf() -> None:
    ended = run("f3aa 90", rcx=2, rdi=0xFFFF_8880_0001_0000, rflags=IF, events=(interrupt(2),))

    assert (frame(ended).rip, frame(ended).rflags) == (KERNEL_CODE + 2, IF | 2)


def test_a_second_event_at_the_same_boundary_does_not_inherit_rf_from_the_string_instruction() -> None:
    ended = run("f3aa", rcx=4, rdi=0xFFFF_8880_0001_0000, events=(machine_check(2), nmi(2)))

    assert outcomes(ended) == ["#MC", "NMI"]
    assert (frame(ended).rip, frame(ended).rflags) == (handler(18), 2)


def test_a_rep_prefix_means_nothing_on_a_jump_to_itself() -> None:
    ended = run("f3ebfd", rflags=IF, events=(interrupt(3),))

    assert (frame(ended).rip, frame(ended).rflags) == (KERNEL_CODE, IF | 2)


def test_an_external_interrupts_gate_decides_about_nested_interrupts() -> None:
    nested = (interrupt(0), interrupt(0, 0x31))

    assert outcomes(run("90", rflags=IF, events=nested)) == ["vector 0x72"]
    assert outcomes(run("90", rflags=IF, events=nested, idt={0x72: gate(handler(0x72), kind=0xF)})) == ["vector 0x72", "vector 0x31"]


@pytest.mark.parametrize("code", [pytest.param("fb f3aa 90", id="sti"), pytest.param("8ed0 f3aa 90", id="mov-ss")])
def test_whether_a_shadow_ends_between_two_iterations_is_open(code: str) -> None:
    parts = {"rcx": 4, "rdi": 0xFFFF_8880_0001_0000, "rax": KERNEL_DS, "rflags": 2}

    ended = run(code, events=(interrupt(2),), **parts)

    assert outcome(ended).startswith("not modelled: ")
