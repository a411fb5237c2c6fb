"""What the Unicorn core delivers: saved RIP, error code, CR2, RF in the saved flags, the NMI latch. Expectations from the SDM."""

from __future__ import annotations

from typing import Any

import pytest
from fuzzer_builders import both, entered, interrupt, linux4, nmi, snippet, words_at

from fuzzer.build import build
from fuzzer.case import Case
from fuzzer.compare import compare
from fuzzer.cores.unicorn.core import UnicornCore
from fuzzer.targets import layout, tables
from fuzzer.targets.target import patch
from reference.bits import FIXED, IF, RF
from reference.image import End, Observation

CODE = layout.KERNEL_CODE.start
USER_CODE = layout.USER_CODE.start
KERNEL = layout.KERNEL_DATA.start + 0x100
PRESENT, WRITE, USER, RESERVED, FETCH = 1, 2, 4, 8, 16

RSP = layout.THREAD_STACK.end - 0x100

FAULTS: dict[str, tuple[Case, tuple[int, int | None, int, int], int | None]] = {
    # case, (vector, error code, saved RIP, interrupted CPL), CR2
    "load-from-an-unmapped-page": (snippet("90 488b00", rax=0x1000), (14, 0, CODE + 1, 0), 0x1000),
    "store-to-an-unmapped-page": (snippet("90 488900", rax=0x1000), (14, WRITE, CODE + 1, 0), 0x1000),
    "user-reads-the-kernel": (snippet("488b00", "user", rax=KERNEL), (14, PRESENT | USER, USER_CODE, 3), KERNEL),
    "user-writes-what-is-read-only": (
        snippet("488900", "user", rax=layout.USER_READONLY.start),
        (14, PRESENT | WRITE | USER, USER_CODE, 3),
        layout.USER_READONLY.start,
    ),
    "kernel-reads-the-user-under-smap": (
        snippet("488b00", rax=layout.USER_DATA.start),
        (14, PRESENT, CODE, 0),
        layout.USER_DATA.start,
    ),
    "fetch-from-an-unmapped-page": (snippet("ffe0", rax=0x1000), (14, FETCH, 0x1000, 0), 0x1000),
    "fetch-from-a-page-without-execution": (snippet("ffe0", rax=KERNEL), (14, PRESENT | FETCH, KERNEL, 0), KERNEL),
    "kernel-runs-user-code-under-smep": (snippet("ffe0", rax=USER_CODE), (14, PRESENT | FETCH, USER_CODE, 0), USER_CODE),
    "store-across-a-page": (
        snippet("488900", rax=layout.KERNEL_DATA.end - 4),
        (14, WRITE, CODE, 0),
        layout.KERNEL_DATA.end,
    ),
    "selector-past-the-table": (snippet("90 8ed8", rax=0xFFF8), (13, 0xFFF8, CODE + 1, 0), None),
    "selector-of-code-that-cannot-be-read": (snippet("8ed8", "user", rax=0x8B), (13, 0x88, USER_CODE, 3), None),
    "segment-not-present": (snippet("90 8ed8", "user", rax=0x6B), (11, 0x68, USER_CODE + 1, 3), None),
    "stack-segment-not-present": (snippet("8ed0", rax=0x90), (12, 0x90, CODE, 0), None),
    "load-from-a-non-canonical-address": (snippet("488b00", rax=0x8000_0000_0000), (13, 0, CODE, 0), None),
    "wrmsr-in-user-mode": (snippet("0f30", "user"), (13, 0, USER_CODE, 3), None),
    "cli-in-user-mode": (snippet("90 fa", "user"), (13, 0, USER_CODE + 1, 3), None),
    "divide-by-zero": (snippet("90 f7f1", rcx=0), (0, None, CODE + 1, 0), None),
    "undefined-opcode": (snippet("90 0f0b"), (6, None, CODE + 1, 0), None),
    "int3": (snippet("90 cc", "user"), (3, None, USER_CODE + 2, 3), None),
    "int-n": (snippet("90 cd30"), (0x30, None, CODE + 3, 0), None),
    "int-n-of-a-vector-with-an-error-code": (snippet("cd0e"), (14, None, CODE + 2, 0), None),
    "int-n-that-user-mode-may-not-raise": (snippet("90 cd30", "user"), (13, 0x30 * 8 + 2, USER_CODE + 1, 3), None),
    "int-n-past-the-idt": (snippet("cd30", "user", idtr_limit=0x2F * 16 + 15), (13, 0x30 * 8 + 2, USER_CODE, 3), None),
    "iretq-to-a-bad-selector": (
        snippet("48cf", rsp=RSP, memory=[patch(layout.THREAD_STACK, RSP - layout.THREAD_STACK.start + 8, bytes([0xFB, 0]))]),
        (13, 0xF8, CODE, 0),
        None,
    ),
    "sysenter-without-a-segment": (snippet("90 0f34", "user", sysenter_cs=0), (13, 0, USER_CODE + 1, 3), None),
    "syscall-without-sce": (snippet("90 0f05", "user", efer=0xD00), (6, None, USER_CODE + 1, 3), None),
    "code-breakpoint": (snippet("90 90", dr0=CODE + 1, dr7=0x401), (1, None, CODE + 1, 0), None),
    "single-step": (snippet("90 90", rflags=FIXED | 0x100), (1, None, CODE + 1, 0), None),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_has_the_address_the_error_code_and_the_cr2_of_the_manual(core: UnicornCore, name: str) -> None:
    case, (vector, error_code, rip, cpl), cr2 = FAULTS[name]

    spec, seen = both(core, case)

    assert [entry[1:] for entry in entered(seen)][:1] == [(vector, error_code, rip, cpl)]
    assert entered(spec) == entered(seen)
    assert seen.register("cr2") == (cr2 or 0)


def saved_flags(case: Case, seen: Observation) -> int:
    """RFLAGS of the frame that the last handler of a snippet got, if it ended the run: handlers of exceptions do."""
    rsp = seen.register("rsp")
    region = next(region for region in layout.MAPPED if region.start <= rsp < region.end)
    offset = 8 if seen.deliveries[-1].error_code is not None else 0
    return words_at(build(case), seen, region, rsp + offset, 5)[2]


@pytest.mark.parametrize("name", [name for name in FAULTS if name != "int-n"])
def test_faults_save_rf_and_traps_save_it_as_it_was(core: UnicornCore, name: str) -> None:
    case, (vector, *_), _ = FAULTS[name]

    _, seen = both(core, case)

    trap = vector in (1, 3) or name == "int-n-of-a-vector-with-an-error-code"
    assert saved_flags(case, seen) & RF == (0 if trap else RF)


REP: dict[str, Any] = {"rcx": 4, "rsi": KERNEL, "rdi": KERNEL + 64, "rflags": FIXED | IF}


@pytest.mark.parametrize(
    ("boundary", "flags"),
    [
        pytest.param(0, FIXED | IF, id="before"),
        pytest.param(1, FIXED | IF | RF, id="behind-the-first-iteration"),
        pytest.param(3, FIXED | IF | RF, id="before-the-last-iteration"),
        pytest.param(4, FIXED | IF, id="behind-the-last-iteration"),
    ],
)
@pytest.mark.parametrize("kind", ["interrupt", "nmi"])
def test_an_event_between_two_iterations_saves_rf(core: UnicornCore, boundary: int, flags: int, kind: str) -> None:
    event = interrupt(boundary) if kind == "interrupt" else nmi(boundary)
    stack = RSP - 40 if kind == "interrupt" else layout.NMI_STACK.end - 40
    case = snippet("f3a4", events=[event], rsp=RSP, **REP)

    _, seen = both(core, case)

    region = layout.THREAD_STACK if kind == "interrupt" else layout.NMI_STACK
    assert words_at(build(case), seen, region, stack, 5)[2] == flags


def test_a_fault_in_the_middle_of_rep_stands_on_the_instruction_with_the_count_that_is_left(core: UnicornCore) -> None:
    case = snippet("90 f3aa", rcx=5, rdi=layout.KERNEL_DATA.end - 3)

    _, seen = both(core, case)

    assert entered(seen) == [(4, 14, WRITE, CODE + 1, 0)]
    assert seen.register("rcx") == 2
    assert seen.register("cr2") == layout.KERNEL_DATA.end


def test_an_nmi_in_an_nmi_waits_for_iret(core: UnicornCore) -> None:
    """The NMI handler of linux4 is long: a second NMI on any boundary of it is taken right behind its IRETQ."""
    alone, _ = both(core, linux4("nmi-from-user", nmi(2)))
    behind = alone.retired - 6

    for boundary in range(3, behind, 7):
        spec, seen = both(core, linux4("nmi-from-user", nmi(2), nmi(boundary)))

        assert [entry[:2] for entry in entered(seen)] == [entry[:2] for entry in entered(spec)]
        first, second = entered(seen)
        assert second[1] == 2
        assert second[0] > first[0] + 50
        assert second[3:] == first[3:]


def test_one_of_two_nmis_that_wait_is_lost(core: UnicornCore) -> None:
    spec, seen = both(core, linux4("nmi-from-user", nmi(2), nmi(10), nmi(20)))

    assert [entry[1] for entry in entered(seen)] == [2, 2]
    assert entered(spec) == entered(seen)


def test_an_iret_of_an_exception_handler_inside_an_nmi_frees_the_latch(core: UnicornCore) -> None:
    """SDM Vol. 3A, 7.7.1: NMIs are blocked until the next IRET, whichever that is."""
    # The NMI handler of `snippets` replaced by: int 0x30 (whose handler is one IRETQ); nop; iretq
    text = patch(layout.KERNEL_TEXT, 2 * 16, bytes.fromhex("cd309048cf"))
    case = snippet("90 90", events=[nmi(0), nmi(1)], memory=[text])

    spec, seen = both(core, case)

    assert [entry[1] for entry in entered(seen)] == [2, 0x30, 2, 0x30]
    assert entered(spec) == entered(seen)
    assert entered(seen)[2][3] == layout.KERNEL_TEXT.start + 2 * 16 + 2


def test_an_interrupt_between_two_cpls_takes_rsp0_and_aligns_it(core: UnicornCore) -> None:
    slot = patch(layout.PERCPU, layout.TSS_OFFSET + 4, (layout.THREAD_STACK.end - 0x39).to_bytes(8, "little"))
    case = snippet("90", "user", events=[interrupt(1)], memory=[slot], rsp=layout.USER_STACK.end - 0x100)

    _, seen = both(core, case)

    top = layout.THREAD_STACK.end - 0x40 - 40
    assert words_at(build(case), seen, layout.THREAD_STACK, top, 5) == (
        USER_CODE + 1,
        layout.USER_CS,
        FIXED | IF,
        layout.USER_STACK.end - 0x100,
        layout.USER_DS,
    )


@pytest.mark.parametrize(("vector", "present", "end"), [(13, False, End.ENDED), (8, True, End.ENDED), (8, False, End.SHUTDOWN)])
def test_faults_of_delivery_become_double_fault_and_shutdown(core: UnicornCore, vector: int, present: bool, end: End) -> None:
    gone = [patch(layout.IDT, 13 * 16, tables.gate(layout.KERNEL_TEXT.start, present=False))]
    if not present and vector == 8:
        gone.append(patch(layout.IDT, 8 * 16, tables.gate(layout.KERNEL_TEXT.start, present=False)))
    case = snippet("0f30", "user", memory=gone)

    spec, seen = both(core, case)

    assert (spec.end, seen.end) == (end, end)
    assert [entry[1:3] for entry in entered(seen)] == ([(8, 0)] if end is End.ENDED else [])
    assert compare(build(case), spec, seen).differences == ()
