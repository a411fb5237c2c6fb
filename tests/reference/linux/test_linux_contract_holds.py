"""Right entry code keeps every promise, wherever an event arrives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from linux_small_entry import AT, CODE, HANDLERS, INT80, IRQ, PIECES, RESUME, STUB, broken, call, jump, machine, set_field, verdict
from reference_machine import USER_DS, USER_RSP, gate, interrupt, machine_check, nmi

from reference.bits import AC, DF, IF
from reference.image import End, Event
from reference.linux.contract import PROMISES, assumes, judge
from reference.linux.entry_code import Handler, Origin
from reference.run import run

FIX = set_field("rip", RESUME)
LEAVE_THE_KERNEL = f"6a2b 68{USER_RSP.to_bytes(4, 'little').hex()} 6802020000 6a33 68{RESUME.to_bytes(4, 'little').hex()} 0f01f8 48cf"
"""Pushes a frame for user mode; SWAPGS; IRETQ."""
PATHS = {
    "nothing-from-user": {"code": "90 90"},
    "nothing-from-kernel": {"code": "90 90", "cpl": 0},
    "int3-from-user": {"code": "cc"},
    "int3-from-kernel": {"code": "cc", "cpl": 0},
    "int3-with-df-and-ac": {"code": "cc", "rflags": 0x202 | DF | AC},
    "int3-with-page-tables-of-its-own": {"code": "cc", "cr3": CODE.kernel_cr3 | 8},
    "general-protection-from-user": {"code": "f4", "handlers": {"do_gp": FIX}},
    "general-protection-from-kernel": {"code": "b8f8ff0000 8ec0", "cpl": 0, "handlers": {"do_gp": "488387 80000000 02"}},
    "system-call": {"code": "0f05"},
    "system-call-with-any-rsp": {"code": "0f05", "rsp": 0x10},
    "int3-in-the-system-call": {"code": "0f05", "handlers": {"do_call": "cc"}},
    "interrupt-in-the-system-call": {"code": "0f05", "handlers": {"do_call": "fb 90 90 fa"}, "events": (interrupt(40),)},
    "null-selectors": {"code": "cc", "ds": 3, "es": 2, "fs": 0},
    "nmi-in-an-nmi": {"code": "90 90", "cpl": 0, "handlers": {"do_nmi": "cc 90"}, "events": (nmi(1), nmi(30))},
    "nmi-in-int3-in-an-nmi": {
        "code": "90 90",
        "cpl": 0,
        "change": {"nmi.nested": PIECES["nmi.nested"].replace("c1e80c", "c1e80f")},
        "handlers": {"do_nmi": "cc 90", "do_int3": "b8f8ff0000 8ec0 90", "do_gp": "488387 80000000 02"},
        "events": (nmi(1), nmi(30)),
    },
}  # fmt: skip


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())
def test_right_entry_code_keeps_the_contract(path: dict[str, object]) -> None:
    observation, violations = verdict(**path)  # type: ignore[arg-type]

    assert observation.end is End.ENDED
    assert broken(violations) == []
    assert assumes(machine(**path), CODE) == ()  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [nmi, interrupt], ids=["nmi", "interrupt"])
@pytest.mark.parametrize("name", [name for name, path in PATHS.items() if "cr3" not in path and "events" not in path])
def test_it_does_so_with_an_event_at_every_boundary(name: str, kind: object) -> None:
    """Only the int3 entry of this code knows two CR3."""
    path = PATHS[name]
    length = verdict(**path)[0].retired  # type: ignore[arg-type]
    for boundary in range(length):
        event: Event = kind(boundary)  # type: ignore[operator]

        observation, violations = verdict(**{**path, "events": (event,)})  # type: ignore[arg-type]

        assert observation.end in (End.ENDED, End.NOT_MODELLED), boundary
        assert violations == (), boundary


def test_the_observation_is_that_of_a_plain_run() -> None:
    image = machine("cc")

    assert judge(image, CODE)[0] == run(image)


@pytest.mark.parametrize(
    ("parts", "end"),
    [
        pytest.param({"code": "f4", "cpl": 0}, End.HALTED, id="halted"),
        pytest.param({"code": "ebfe"}, End.DID_NOT_END, id="did-not-end"),
        pytest.param({"code": "0fc7f0"}, End.NOT_MODELLED, id="not-modelled"),
        pytest.param({"tr": 0x60, "cs": 0xF8}, End.NOT_MODELLED, id="no-start"),
        pytest.param({"code": "90", "events": (machine_check(0), machine_check(3)), "idt": {18: gate(AT["int3.orig_rax"], ist=3)}},
                     End.SHUTDOWN, id="two-machine-checks"),
    ],
)  # fmt: skip
def test_a_run_that_ends_otherwise_is_reported_as_run_does(parts: dict[str, object], end: End) -> None:
    observation, violations = verdict(**parts)  # type: ignore[arg-type]

    assert observation.end is end
    assert "survives" not in broken(violations)


def test_a_fault_of_the_return_to_user_mode_looks_like_a_fault_of_user_mode() -> None:
    """pt_regs in do_gp has the CS that IRETQ could not load; the handler repairs it."""
    handlers = {"do_call": set_field("cs", 0xFFF3), "do_gp": set_field("cs", 0x33)}

    observation, violations = verdict("0f05", handlers=handlers)

    assert [delivery.vector for delivery in observation.deliveries] == [13]
    assert violations == ()


def test_a_return_fault_of_the_kernel_itself_is_the_kernels() -> None:
    """The same IRETQ with a frame for the kernel."""
    handlers = {"do_call": set_field("cs", 0xFFF0), "do_gp": set_field("rip", 0x1234)}

    _, violations = verdict("0f05", handlers=handlers)

    assert {violation.promise for violation in violations} >= {"pt-regs", "gs-base"}


def test_a_fault_where_gs_is_loaded_leaves_the_kernels_gs() -> None:
    """SWAPGS, MOV GS, SWAPGS in a function of the kernel: the #GP entry swaps once, the fix-up goes on with the kernel's GS."""
    load = HANDLERS["do_call"] + 3
    probe = "488d05" + (load - AT["gp.bad_return"] - 7).to_bytes(4, "little", signed=True).hex() + "48398424800000007503" + "0f01f8"
    handlers = {"do_call": "0f01f8 8ee8 0f01f8", "do_gp": "488387 80000000 05"}
    entry = replace(CODE, gs_change=frozenset({load}))

    observation, violations = verdict("0f05", entry=entry, change={"gp.bad_return": probe}, handlers=handlers, rax=0xFFF8)

    assert observation.end is End.ENDED
    assert broken(violations) == []


def test_the_system_call_of_an_interrupt_may_keep_the_low_half_of_rax() -> None:
    """`int $0x80` with the number in EAX: a stub in front of the entry clears the other half."""
    change = {"irq.orig_rax": "50", "irq.call": call("irq.call", HANDLERS["do_call"])}
    stub = bytes.fromhex("89c0") + jump(STUB + 2, AT["irq.orig_rax"])

    observation, violations = verdict("cd80", idt={INT80: gate(STUB, dpl=3)}, memory={STUB: stub}, change=change, rax=0x1234_5678_0000_0005)

    assert observation.end is End.ENDED
    assert broken(violations) == []


@pytest.mark.parametrize("handlers", [{}, {"do_irq": LEAVE_THE_KERNEL}], ids=["no-entry-open", "from-inside-an-entry"])
def test_a_return_that_ends_no_entry_from_user_mode_is_not_judged(handlers: dict[str, str]) -> None:
    """A kernel that starts its first program: no entry from user mode is open."""
    code = LEAVE_THE_KERNEL if not handlers else "90 90"

    observation, violations = verdict(code, cpl=0, handlers=handlers, events=(interrupt(1, IRQ),) if handlers else ())

    assert observation.end is End.ENDED
    assert violations == ()


def test_a_debug_exception_at_the_first_instruction_of_a_handler_starts_no_second_run() -> None:
    """It is interrupted before that instruction, and goes on there."""
    debug = Handler("do_debug", Origin.EXCEPTION, 1, ("debug",), ("debug",))
    handlers = {**CODE.handlers, HANDLERS["do_int3"]: debug}
    idt = {1: gate(AT["int3.orig_rax"], ist=3)}
    parts = {"idt": idt, "dr0": HANDLERS["do_call"], "dr7": 0x401, "handlers": {"do_int3": "83a79200000000 808f9200000001"}}

    observation, violations = verdict("0f05", entry=replace(CODE, handlers=handlers), **parts)

    assert [delivery.vector for delivery in observation.deliveries] == [1]
    assert broken(violations) == []


def test_every_promise_has_a_name_a_text_and_a_source() -> None:
    names = [promise.name for promise in PROMISES]

    assert len(set(names)) == len(names)
    assert all(promise.text.endswith(".") and promise.source for promise in PROMISES)


def test_the_paper_lists_every_promise_as_the_code_has_it() -> None:
    page = (Path(__file__).parents[3] / "docs" / "contract.md").read_text(encoding="utf-8")

    rows = [line for line in page.splitlines() if line.startswith("| `")]

    assert rows == [f"| `{promise.name}` | {promise.text} | {promise.source} |" for promise in PROMISES]


def test_the_segments_of_user_mode_come_back() -> None:
    _, violations = verdict("cc", es=USER_DS, ds=USER_DS, fs=USER_DS, events=(interrupt(0, IRQ),))

    assert violations == ()


def test_interrupts_are_on_in_the_machines_of_these_tests() -> None:
    assert machine().registers["rflags"] & IF
