"""Descriptor-table registers, LDTR and TR, and asking about selectors (SDM Vol. 2A, 2B and 2D)."""

from __future__ import annotations

import pytest
from reference_machine import (
    AVAILABLE_TSS,
    BUSY_TSS,
    DATA,
    GDT,
    IDT,
    KERNEL_DATA,
    KERNEL_DS,
    KERNEL_READONLY,
    LDT,
    LDT_SELECTOR,
    LDT_TYPE,
    NOT_CANONICAL,
    PRESENT,
    SPARE,
    TSS,
    TSS_SELECTOR,
    UNMAPPED,
    USER_DATA,
    descriptor,
    gate,
    handler,
    outcome,
    peek,
    q,
    run,
    system,
)

ONES = 0xFFFF_FFFF_FFFF_FFFF
ZF = 0x40


@pytest.mark.parametrize(("code", "name"), [pytest.param("0f0110", "gdtr", id="lgdt"), pytest.param("0f0118", "idtr", id="lidt")])
@pytest.mark.parametrize("prefix", ["", "66", "48"])
def test_loading_a_table_register(code: str, name: str, prefix: str) -> None:
    base = GDT if name == "gdtr" else IDT
    ended = run(prefix + code, rax=KERNEL_DATA, memory={KERNEL_DATA: b"\xff\x0f" + q(base)})

    assert [ended.register(f"{name}_limit"), ended.register(f"{name}_base")] == [0xFFF, base]


@pytest.mark.parametrize("code", ["0f0110", "0f0118"])
def test_a_table_base_must_be_canonical(code: str) -> None:
    ended = run(code, rax=KERNEL_DATA, memory={KERNEL_DATA: b"\xff\x0f" + q(NOT_CANONICAL)})

    assert (outcome(ended), ended.register("gdtr_limit"), ended.register("idtr_limit")) == ("#GP(0x0)", 0xFF, 0xFFF)


@pytest.mark.parametrize("cpl", [0, 3])
@pytest.mark.parametrize("prefix", ["", "66"])
@pytest.mark.parametrize(("code", "stored"), [("0f0100", b"\xff\x00" + q(GDT)), ("0f0108", b"\xff\x0f" + q(IDT))])
def test_storing_a_table_register(code: str, stored: bytes, prefix: str, cpl: int) -> None:
    ended = run(prefix + code, cpl, rax=USER_DATA)

    assert peek(ended, USER_DATA, 11) == int.from_bytes(stored, "little")


@pytest.mark.parametrize("code", ["0f0100", "0f0108"])
def test_what_a_store_of_a_table_register_leaves_when_it_faults_half_way_is_open(code: str) -> None:
    second = KERNEL_DATA + 0x1000
    absent = {(1, second): (0, PRESENT)}

    assert outcome(run(code, rax=second - 4, paging=absent)).startswith("not modelled: ")
    assert outcome(run(code, rax=second, paging=absent)) == "#PF(0x2)"


@pytest.mark.parametrize(("cpl", "expected"), [(0, "ended"), (3, "not modelled: sgdt or sidt with alignment checks")])
def test_the_alignment_that_sgdt_needs_is_not_modelled(cpl: int, expected: str) -> None:
    assert outcome(run("0f0100", cpl, rax=USER_DATA, rflags=1 << 18)) == expected


@pytest.mark.parametrize(
    ("code", "selector"), [pytest.param("0f00c0", LDT_SELECTOR, id="sldt"), pytest.param("0f00c8", TSS_SELECTOR, id="str")]
)
@pytest.mark.parametrize("cpl", [0, 3])
def test_storing_ldtr_and_tr(code: str, selector: int, cpl: int) -> None:
    assert run(code, cpl, rax=ONES).register("rax") == selector
    assert run("48" + code, cpl, rax=ONES).register("rax") == selector
    assert run("66" + code, cpl, rax=ONES).register("rax") == ONES & ~0xFFFF | selector
    in_memory = code.replace("c0", "00").replace("c8", "08")
    assert peek(run(in_memory, cpl, rax=USER_DATA, memory={USER_DATA: b"\xff" * 8}), USER_DATA) == ONES & ~0xFFFF | selector


UMIP = 1 << 11


@pytest.mark.parametrize("code", ["0f0100", "0f0108", "0f0000", "0f0008", "0f0120"], ids=["sgdt", "sidt", "sldt", "str", "smsw"])
@pytest.mark.parametrize(
    ("cpl", "cr4", "expected"),
    [(3, UMIP, "#GP(0x0)"), (3, 0, "ended"), (0, UMIP, "ended")],
    ids=["user-mode", "without-umip", "cpl-0"],
)
def test_umip_keeps_user_mode_from_reading_what_the_kernel_set_up(code: str, cpl: int, cr4: int, expected: str) -> None:
    assert outcome(run(code, cpl, rax=USER_DATA if cpl else KERNEL_DATA, cr4=1 << 5 | cr4)) == expected


OTHER_LDT = {SPARE: system(LDT_TYPE, KERNEL_DATA, 0x17)}


def test_lldt_loads_the_64_bit_base() -> None:
    # lldt ax; mov fs, ecx
    ended = run("0f00d0 8ee1", rax=SPARE, rcx=0x14, gdt=OTHER_LDT, memory={KERNEL_DATA + 0x10: q(descriptor(DATA, base=0x77))})

    assert [ended.register("ldtr"), ended.register("fs_base")] == [SPARE, 0x77]


@pytest.mark.parametrize("selector", range(4))
def test_lldt_of_a_null_selector_leaves_no_ldt(selector: int) -> None:
    ended = run("0f00d0 8ee1", rax=selector, rcx=0xC, ldt={0xC: descriptor(DATA)})

    assert (outcome(ended), ended.register("ldtr")) == ("#GP(0xc)", selector)


@pytest.mark.parametrize(
    ("selector", "gdt", "expected"),
    [
        pytest.param(0xC, {}, "#GP(0xc)", id="in-the-ldt"),
        pytest.param(0x100, {}, "#GP(0x100)", id="past-the-limit"),
        pytest.param(0xF8, {0xF8: descriptor(LDT_TYPE, segment=False)}, "#GP(0xf8)", id="upper-half-past-the-limit"),
        pytest.param(KERNEL_DS, {}, "#GP(0x18)", id="a-data-segment"),
        pytest.param(TSS_SELECTOR, {}, "#GP(0x40)", id="a-tss"),
        pytest.param(SPARE | 3, OTHER_LDT, "ended", id="rpl-does-not-matter"),
        pytest.param(SPARE, {SPARE: system(LDT_TYPE, KERNEL_DATA, 0x17, present=False)}, "#NP(0x60)", id="not-present"),
        pytest.param(SPARE, {SPARE: system(AVAILABLE_TSS, KERNEL_DATA, 0x17, present=False)}, "#GP(0x60)", id="type-before-presence"),
        pytest.param(
            SPARE,
            {SPARE: system(LDT_TYPE, KERNEL_DATA, 0x17, upper_type=1)},
            "not modelled: lldt of a descriptor whose upper half has a type",
            id="upper-type",
        ),
    ],
)  # fmt: skip
def test_checks_of_lldt(selector: int, gdt: dict[int, int | bytes], expected: str) -> None:
    ended = run("0f00d0", rax=selector, gdt=gdt, ldt={0xC: system(LDT_TYPE, KERNEL_DATA, 0x17)})

    assert outcome(ended) == expected
    assert ended.register("ldtr") == (selector if expected == "ended" else LDT_SELECTOR)


OTHER_TSS = {SPARE: system(AVAILABLE_TSS, TSS, 0x67)}


def test_ltr_loads_the_task_register_and_marks_the_tss_busy() -> None:
    ended = run("0f00d8", rax=SPARE, gdt=OTHER_TSS)

    assert (outcome(ended), ended.register("tr")) == ("ended", SPARE)
    assert peek(ended, GDT + SPARE, 16) == int.from_bytes(system(BUSY_TSS, TSS, 0x67), "little")


def test_the_stacks_of_the_new_tss_are_used() -> None:
    ended = run("0f00d8 0f0b", rax=SPARE, gdt={SPARE: system(AVAILABLE_TSS, KERNEL_DATA, 0x67)}, idt={6: gate(handler(6), ist=1)},
                memory={KERNEL_DATA + 36: q(KERNEL_DATA + 0x800)})  # fmt: skip

    assert (outcome(ended), ended.register("rsp")) == ("#UD", KERNEL_DATA + 0x800 - 40)


@pytest.mark.parametrize(
    ("selector", "gdt", "expected"),
    [
        pytest.param(0, {}, "#GP(0x0)", id="null"),
        pytest.param(3, {}, "#GP(0x0)", id="null-with-rpl"),
        pytest.param(0xC, {}, "#GP(0xc)", id="in-the-ldt"),
        pytest.param(0x100, {}, "#GP(0x100)", id="past-the-limit"),
        pytest.param(TSS_SELECTOR, {}, "#GP(0x40)", id="busy"),
        pytest.param(LDT_SELECTOR, {}, "#GP(0x50)", id="an-ldt"),
        pytest.param(SPARE, {SPARE: descriptor(0x9)}, "#GP(0x60)", id="a-code-segment-of-the-same-type"),
        pytest.param(SPARE, {SPARE: system(AVAILABLE_TSS, TSS, 0x67, present=False)}, "#NP(0x60)", id="not-present"),
        pytest.param(SPARE, {SPARE: system(AVAILABLE_TSS, TSS, 0x67, upper_type=1)}, "#GP(0x60)", id="upper-type"),
    ],
)
def test_checks_of_ltr(selector: int, gdt: dict[int, int | bytes], expected: str) -> None:
    ended = run("0f00d8", rax=selector, gdt=gdt, ldt={0xC: system(AVAILABLE_TSS, TSS, 0x67)})

    assert (outcome(ended), ended.register("tr")) == (expected, TSS_SELECTOR)


def test_ltr_that_cannot_mark_the_tss_busy_changes_nothing() -> None:
    ended = run("0f00d8", rax=SPARE, gdt=OTHER_TSS, paging={(1, GDT): (0, 2)})

    assert (outcome(ended), ended.register("tr")) == ("#PF(0x3)", TSS_SELECTOR)


def test_an_unreachable_table_faults() -> None:
    assert outcome(run("0f0110", rax=UNMAPPED)) == "#PF(0x0)"
    assert outcome(run("0f0100", rax=KERNEL_READONLY)) == "#PF(0x3)"


def test_the_ldt_of_the_builder_is_where_its_descriptor_says() -> None:
    assert run("8ee1", rcx=0xC, ldt={0xC: descriptor(DATA, base=LDT & 0xFFFF)}).register("fs_base") == LDT & 0xFFFF
