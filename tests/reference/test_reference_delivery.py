"""Entering a handler: the checks of INT n, IA-32e-MODE (SDM Vol. 2A) in their order, the stack, the frame, and faults on the way."""

from __future__ import annotations

import pytest
from reference_machine import (
    BUSY_TSS,
    CODE,
    CODE_NOT_ACCESSED,
    CONFORMING,
    FIRST_KERNEL_PAGE,
    GDT,
    IST_STACKS,
    KERNEL_CODE,
    KERNEL_CS,
    KERNEL_DATA,
    KERNEL_DS,
    KERNEL_RSP,
    NOT_CANONICAL,
    RSP0,
    SPARE,
    TSS,
    TSS_SELECTOR,
    USER_CODE,
    USER_CS,
    USER_DS,
    USER_RSP,
    USER_STACK,
    WRITABLE,
    descriptor,
    frame,
    gate,
    handler,
    interrupt,
    outcome,
    peek,
    q,
    run,
    system,
)  # fmt: skip

from reference.image import End, Observation

V = 0x72
IF, TF, NT, RF, AC, DF, IOPL = 0x200, 0x100, 0x4000, 0x1_0000, 0x4_0000, 0x400, 0x3000


def software(cpl: int = 0, **parts: object) -> Observation:
    """INT 0x72."""
    return run("cd72", cpl, **parts)


def external(cpl: int = 0, **parts: object) -> Observation:
    """Interrupt 0x72 before the first instruction."""
    return run("90", cpl, rflags=0x202, events=(interrupt(0, V),), **parts)


SPARE_HANDLER = {V: gate(handler(V), SPARE)}
DAMAGE = [
    pytest.param({"idtr_limit": V * 16 + 14}, "#GP", V << 3 | 2, id="vector-past-the-idt-limit"),
    pytest.param({"idt": {V: gate(handler(V), kind=0xC)}}, "#GP", V << 3 | 2, id="gate-of-another-type"),
    pytest.param({"idt": {V: gate(handler(V), kind=0x6)}}, "#GP", V << 3 | 2, id="16-bit-gate"),
    pytest.param({"idt": {V: gate(handler(V), segment=True)}}, "#GP", V << 3 | 2, id="gate-with-s-flag"),
    pytest.param({"idt": {V: gate(handler(V), present=False)}}, "#NP", V << 3 | 2, id="gate-not-present"),
    pytest.param({"idt": {V: gate(handler(V), kind=0xC, present=False)}}, "#GP", V << 3 | 2, id="type-before-presence"),
    pytest.param({"idt": {V: gate(handler(V), 0x3)}}, "#GP", 0, id="null-code-selector"),
    pytest.param({"idt": {V: gate(handler(V), 0x100)}}, "#GP", 0x100, id="code-selector-past-the-gdt-limit"),
    pytest.param({"idt": {V: gate(handler(V), 0x44)}}, "#GP", 0x44, id="code-selector-past-the-ldt-limit"),
    pytest.param({"idt": {V: gate(handler(V), KERNEL_DS)}}, "#GP", KERNEL_DS, id="handler-in-a-data-segment"),
    pytest.param({"idt": {V: gate(handler(V), TSS_SELECTOR)}}, "#GP", TSS_SELECTOR, id="handler-in-a-tss"),
    pytest.param({"idt": {V: gate(handler(V), USER_CS)}}, "#GP", USER_CS & ~3, id="handler-dpl-above-the-cpl"),
    pytest.param(
        {"idt": SPARE_HANDLER, "gdt": {SPARE: descriptor(CODE, long=True, present=False)}},
        "#NP", SPARE, id="handler-segment-not-present",
    ),
    pytest.param(
        {"idt": SPARE_HANDLER, "gdt": {SPARE: descriptor(CODE, 3, long=True, present=False)}},
        "#GP", SPARE, id="handler-dpl-before-presence",
    ),
    pytest.param({"idt": {V: gate(NOT_CANONICAL)}}, "#GP", 0, id="handler-not-canonical"),
    pytest.param(
        {"idt": {V: gate(handler(V), ist=1)}, "gdt": {TSS_SELECTOR: system(BUSY_TSS, TSS, 42)}},
        "#TS", TSS_SELECTOR, id="ist-slot-past-the-tss-limit",
    ),
    pytest.param({"idt": {V: gate(handler(V), ist=1)}, "tss": {36: q(1 << 50)}}, "#SS", 0, id="ist-stack-not-canonical"),
    pytest.param(
        {"idt": {V: gate(handler(V), ist=1)}, "tss": {36: q(FIRST_KERNEL_PAGE + 32)}}, "#SS", 0, id="frame-would-leave-the-canonical-half"
    ),
    pytest.param({"idt": {V: gate(NOT_CANONICAL, ist=1)}, "tss": {36: q(1 << 50)}}, "#SS", 0, id="stack-before-handler-address"),
]  # fmt: skip


@pytest.mark.parametrize(("damage", "fault", "error"), DAMAGE)
def test_a_bad_gate_raises_the_fault_the_manual_names_with_ext_0_for_int_n(damage: dict[str, object], fault: str, error: int) -> None:
    assert outcome(software(**damage)) == f"{fault}({error:#x})"


@pytest.mark.parametrize(("damage", "fault", "error"), DAMAGE)
def test_the_same_fault_has_ext_1_for_an_external_interrupt(damage: dict[str, object], fault: str, error: int) -> None:
    assert outcome(external(**damage)) == f"{fault}({error | 1:#x})"


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param({"idtr_limit": V * 16 + 15}, id="vector-ends-at-the-idt-limit"),
        pytest.param(
            {"idt": {V: gate(handler(V), ist=1)}, "gdt": {TSS_SELECTOR: system(BUSY_TSS, TSS, 43)}}, id="ist-slot-ends-at-the-tss-limit"
        ),
        pytest.param({"idt": {V: gate(handler(V), ist=1)}, "tss": {36: q(FIRST_KERNEL_PAGE + 48)}}, id="frame-ends-at-the-canonical-half"),
        pytest.param({"idt": {V: gate(handler(V), KERNEL_CS | 3)}}, id="rpl-of-the-gate-selector-is-ignored"),
    ],
)
def test_limits_are_inclusive(parts: dict[str, object]) -> None:
    assert outcome(software(**parts)) == f"vector {V:#x}"


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param({"idt": {V: gate(handler(V), 0x08)}}, id="handler-not-64-bit"),
        pytest.param({"idt": SPARE_HANDLER, "gdt": {SPARE: descriptor(CODE, long=True, big=True)}}, id="handler-with-l-and-d"),
        pytest.param({"idt": {V: gate(handler(V), ist=1)}, "tss": {36: q(NOT_CANONICAL)}}, id="stack-begins-at-the-canonical-end"),
        pytest.param({"idtr_base": 0x7FFF_FFFF_FFF0 - V * 16 + 8}, id="gate-crosses-into-non-canonical-addresses"),
        pytest.param(
            {"idt": SPARE_HANDLER, "gdt": {SPARE: descriptor(CODE_NOT_ACCESSED, long=True)}, "paging": {(1, GDT): (0, WRITABLE)}},
            id="accessed-flag-cannot-be-written",
        ),
        pytest.param(
            {"idt": {V: gate(handler(V), ist=1)}, "tss": {36: q(USER_RSP)}, "cr4": 0x20_0020, "rflags": AC | 2},
            id="frame-on-a-user-page-with-smap-and-ac",
        ),
        pytest.param({"dr0": KERNEL_RSP - 8, "dr7": 0x1_0402}, id="data-breakpoint-on-the-frame"),
    ],
)  # fmt: skip
def test_what_the_manual_leaves_open_is_not_modelled(parts: dict[str, object]) -> None:
    assert outcome(software(**parts)).startswith("not modelled: ")


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        pytest.param("cd72", f"#GP({V << 3 | 2:#x})", id="int-n"),
        pytest.param("cc", "#GP(0x1a)", id="int3"),
        pytest.param("cd03", "#GP(0x1a)", id="int-3"),
        pytest.param("f1", "#DB", id="int1-is-not-checked"),
        pytest.param("0f0b", "#UD", id="exceptions-are-not-checked"),
    ],
)
def test_the_gates_dpl_is_checked_for_software_interrupts_only(code: str, expected: str) -> None:
    assert outcome(run(code, cpl=3)) == expected


def test_the_gates_dpl_is_checked_before_its_presence() -> None:
    absent = {V: gate(handler(V), present=False)}

    assert outcome(software(3, idt=absent)) == f"#GP({V << 3 | 2:#x})"
    assert outcome(external(3, idt=absent)) == f"#NP({V << 3 | 3:#x})"


def test_ext_is_1_for_int1() -> None:
    assert outcome(run("f1", idt={1: gate(handler(1), 0)})) == "#GP(0x1)"


@pytest.mark.parametrize("code", [pytest.param("cd72", id="int-n"), pytest.param("cc", id="int3"), pytest.param("f1", id="int1")])
def test_an_interrupt_instruction_whose_delivery_faults_returns_to_itself_with_rf(code: str) -> None:
    none = dict.fromkeys((1, 3, V), gate(handler(V), 0))

    ended = run(code, idt=none)

    assert (frame(ended, error_code=True).rip, frame(ended, error_code=True).rflags) == (KERNEL_CODE, RF | 2)
    assert ended.retired == 0


def test_a_frame_from_user_mode_is_pushed_on_rsp0_with_a_null_ss() -> None:
    ended = software(3, idt={V: gate(handler(V), dpl=3)}, rflags=0x2 | IF | DF)

    assert frame(ended) == (USER_CODE + 2, USER_CS, 0x2 | IF | DF, USER_RSP, USER_DS)
    assert [ended.register(name) for name in ("rsp", "ss", "cs")] == [RSP0 - 40, 0, KERNEL_CS]


def test_a_frame_from_kernel_mode_is_pushed_on_the_same_stack_aligned_to_16() -> None:
    ended = software(rsp=KERNEL_RSP + 15)

    assert frame(ended) == (KERNEL_CODE + 2, KERNEL_CS, 0x2, KERNEL_RSP + 15, KERNEL_DS)
    assert [ended.register(name) for name in ("rsp", "ss")] == [KERNEL_RSP - 40, KERNEL_DS]


@pytest.mark.parametrize("slot", range(1, 8))
def test_an_ist_slot_is_used_whatever_the_cpl_is(slot: int) -> None:
    parts = {"idt": {V: gate(handler(V), dpl=3, ist=slot)}}

    for cpl in (0, 3):
        assert software(cpl, **parts).register("rsp") == IST_STACKS + slot * 0x1000 + 0x800 - 40


def test_an_ist_stack_is_aligned_to_16() -> None:
    ended = software(idt={V: gate(handler(V), ist=1)}, tss={36: q(IST_STACKS + 0x80F)})

    assert ended.register("rsp") == IST_STACKS + 0x800 - 40


def test_a_slot_of_the_tss_may_cross_two_pages() -> None:
    base = KERNEL_DATA + 0x1000 - 36 - 4

    ended = software(gdt={TSS_SELECTOR: system(BUSY_TSS, base, 0x67)}, memory={base + 36: q(KERNEL_DATA + 0x800)},
                     idt={V: gate(handler(V), ist=1)})  # fmt: skip

    assert ended.register("rsp") == KERNEL_DATA + 0x800 - 40


def test_rsp_of_the_handlers_own_level_is_used() -> None:
    ring1 = {SPARE: descriptor(CODE, 1, long=True), 0x68: descriptor(3, 1)}
    idt = {V: gate(USER_CODE + 0x100, SPARE, dpl=3), 0xF1: gate(handler(0xF1), dpl=3)}

    ended = software(3, gdt=ring1, idt=idt, tss={12: q(USER_STACK + 0x400)}, paging={(1, USER_CODE): (0, 4), (1, USER_STACK): (0, 4)},
                     rip=USER_CODE + 0x1000, memory={USER_CODE + 0x100: b"\xcd\xf1"})  # fmt: skip

    assert [ended.register(name) for name in ("rsp", "cs", "ss")] == [USER_STACK + 0x400 - 40, SPARE | 1, 1]


def test_a_conforming_handler_runs_at_the_interrupted_cpl_on_its_stack() -> None:
    ended = software(3, gdt={SPARE: descriptor(CONFORMING, long=True)}, idt={V: gate(USER_CODE + 0x100, SPARE, dpl=3)},
                     memory={USER_CODE + 0x100: b"\xcd\xf1"})  # fmt: skip

    assert [ended.register(name) for name in ("rsp", "cs", "ss")] == [USER_RSP - 40, SPARE | 3, USER_DS]


def test_loading_the_handlers_segment_marks_it_accessed() -> None:
    ended = software(gdt={SPARE: descriptor(CODE_NOT_ACCESSED, long=True)}, idt={V: gate(handler(V), SPARE)})

    assert peek(ended, GDT + SPARE) == descriptor(CODE, long=True)


@pytest.mark.parametrize(("kind", "kept"), [pytest.param(0xE, 0, id="interrupt-gate"), pytest.param(0xF, IF, id="trap-gate")])
def test_entry_clears_tf_nt_rf_and_an_interrupt_gate_clears_if(kind: int, kept: int) -> None:
    flags = 0x2 | IF | NT | RF | AC | DF | IOPL | 0x8D5

    ended = software(idt={V: gate(handler(V), kind=kind)}, rflags=flags | TF)

    assert frame(ended).rflags == flags & ~RF | TF
    assert ended.register("rflags") == 0x2 | kept | AC | DF | IOPL | 0x8D5


@pytest.mark.parametrize(
    ("code", "cpl", "pushed"),
    [
        pytest.param("0f0b", 3, RF, id="fault-sets-rf"),
        pytest.param("cd72", 0, 0, id="software-interrupt-does-not"),
        pytest.param("f1", 0, 0, id="int1-does-not"),
    ],
)
def test_rf_in_the_pushed_image_is_1_for_faults(code: str, cpl: int, pushed: int) -> None:
    assert frame(run(code, cpl)).rflags & RF == pushed


@pytest.mark.parametrize("code", ["cd72", "cc", "f1"])
def test_a_software_interrupt_has_cleared_rf_before_it_pushes_it(code: str) -> None:
    ended = run(code, rflags=0x202 | RF)

    assert not frame(ended).rflags & RF


def test_a_fault_on_the_way_of_a_software_interrupt_pushes_rf() -> None:
    assert frame(run("cd72", 3, rflags=0x202 | RF), error_code=True).rflags & RF


def test_an_external_interrupt_pushes_rf_as_it_is() -> None:
    assert not frame(external()).rflags & RF
    assert frame(run("90", rflags=0x202 | RF, events=(interrupt(0),))).rflags & RF


def test_nothing_is_pushed_when_the_frame_crosses_into_a_missing_page() -> None:
    parts = {"idt": {V: gate(handler(V), ist=1)}, "tss": {36: q(IST_STACKS + 16)}}

    ended = software(**parts)

    assert outcome(ended) == "#PF(0x2)"
    assert ended.register("cr2") == IST_STACKS - 24
    assert IST_STACKS >> 12 not in ended.memory


def test_the_run_ends_when_the_reserved_interrupt_would_enter_its_handler() -> None:
    assert outcome(run("")) == "ended"
    assert outcome(run("", 3, idt={0xF1: gate(handler(0xF1))})) == "#GP(0x78a)"


def test_an_external_interrupt_with_the_reserved_vector_does_not_end_the_run() -> None:
    ended = run("90", rflags=0x202, events=(interrupt(0, 0xF1),), handlers={0xF1: "f4"})

    assert ended.end is End.HALTED


def test_only_a_debug_exception_clears_dr7_gd() -> None:
    watched = {"dr7": 0x2400, "idt": {1: gate(handler(1), dpl=3)}}

    assert run("cd01", **watched).register("dr7") == 0x2400
    assert run("0f21f8", **watched).register("dr7") == 0x400
