"""Loading DS, ES, FS, GS and SS (SDM Vol. 2B, MOV; Vol. 3A, 3.4 and 6.6; APM Vol. 2, 4.5.3)."""

from __future__ import annotations

import pytest
from reference_machine import (
    CODE,
    CONFORMING,
    DATA,
    DATA_NOT_ACCESSED,
    EXECUTE_ONLY,
    GDT,
    KERNEL_CS,
    KERNEL_DATA,
    KERNEL_DS,
    LAST_USER_PAGE,
    LDT,
    LDT_SELECTOR,
    READ_ONLY_DATA,
    SPARE,
    TSS_SELECTOR,
    USER_CS,
    USER_DS,
    WRITABLE,
    descriptor,
    gdt_bytes,
    outcome,
    peek,
    q,
    run,
)  # fmt: skip

MOV = {"es": "8ec0", "ss": "8ed0", "ds": "8ed8", "fs": "8ee0", "gs": "8ee8"}
DATA_REGISTERS = ["es", "ds", "fs", "gs"]


@pytest.mark.parametrize("register", DATA_REGISTERS)
@pytest.mark.parametrize("cpl", [0, 3])
@pytest.mark.parametrize(
    ("selector", "entry", "expected"),
    [
        pytest.param(USER_DS, None, ("ended", "ended"), id="user-data"),
        pytest.param(USER_CS, None, ("ended", "ended"), id="readable-user-code"),
        pytest.param(KERNEL_DS, None, ("ended", "#GP(0x18)"), id="kernel-data"),
        pytest.param(KERNEL_DS | 3, None, ("#GP(0x18)", "#GP(0x18)"), id="kernel-data-with-rpl-3"),
        pytest.param(KERNEL_CS, None, ("ended", "#GP(0x10)"), id="readable-kernel-code"),
        pytest.param(TSS_SELECTOR, None, ("#GP(0x40)", "#GP(0x40)"), id="tss"),
        pytest.param(0x100, None, ("#GP(0x100)", "#GP(0x100)"), id="past-the-gdt-limit"),
        pytest.param(0x47, None, ("#GP(0x44)", "#GP(0x44)"), id="past-the-ldt-limit"),
        pytest.param(SPARE | 3, descriptor(EXECUTE_ONLY, 3, long=True), ("#GP(0x60)", "#GP(0x60)"), id="execute-only-code"),
        pytest.param(SPARE | 3, descriptor(CONFORMING), ("ended", "ended"), id="conforming-code-whatever-the-dpl"),
        pytest.param(SPARE | 3, descriptor(READ_ONLY_DATA, 3), ("ended", "ended"), id="read-only-data"),
        pytest.param(SPARE | 3, descriptor(DATA, 3, present=False), ("#NP(0x60)", "#NP(0x60)"), id="not-present"),
        pytest.param(SPARE | 3, descriptor(DATA, 0, present=False), ("#GP(0x60)", "#GP(0x60)"), id="privilege-before-presence"),
        pytest.param(SPARE | 3, descriptor(EXECUTE_ONLY, 3, present=False), ("#GP(0x60)", "#GP(0x60)"), id="type-before-presence"),
    ],
)
def test_loading_a_data_segment_register(register: str, cpl: int, selector: int, entry: int | None, expected: tuple[str, str]) -> None:
    ended = run(MOV[register], cpl, rax=selector, gdt={} if entry is None else {SPARE: entry})

    assert outcome(ended) == expected[cpl == 3]
    assert ended.register(register) == (selector if outcome(ended) == "ended" else 0)


@pytest.mark.parametrize(
    ("cpl", "selector", "entry", "expected"),
    [
        pytest.param(0, KERNEL_DS, None, "ended", id="kernel-data"),
        pytest.param(3, USER_DS, None, "ended", id="user-data"),
        pytest.param(0, 0, None, "ended", id="null-at-cpl-0"),
        pytest.param(0, 3, None, "#GP(0x0)", id="null-with-another-rpl"),
        pytest.param(3, 0, None, "#GP(0x0)", id="null-at-cpl-3"),
        pytest.param(3, 3, None, "#GP(0x0)", id="null-at-cpl-3-with-rpl-3"),
        pytest.param(0, 0x100, None, "#GP(0x100)", id="past-the-limit"),
        pytest.param(0, KERNEL_DS | 1, None, "#GP(0x18)", id="rpl-is-not-the-cpl"),
        pytest.param(0, USER_DS & ~3, None, "#GP(0x28)", id="dpl-is-not-the-cpl"),
        pytest.param(3, KERNEL_DS | 3, None, "#GP(0x18)", id="dpl-below-the-cpl"),
        pytest.param(0, KERNEL_CS, None, "#GP(0x10)", id="code"),
        pytest.param(0, SPARE, descriptor(READ_ONLY_DATA), "#GP(0x60)", id="not-writable"),
        pytest.param(0, SPARE, descriptor(DATA, present=False), "#SS(0x60)", id="not-present"),
        pytest.param(0, SPARE | 1, descriptor(DATA, present=False), "#GP(0x60)", id="rpl-before-presence"),
    ],
)
def test_loading_ss(cpl: int, selector: int, entry: int | None, expected: str) -> None:
    ended = run(MOV["ss"], cpl, rax=selector, gdt={} if entry is None else {SPARE: entry})

    assert outcome(ended) == expected
    if expected == "ended":
        assert ended.register("ss") == selector


def test_only_the_low_16_bits_of_the_source_count() -> None:
    assert run(MOV["ds"], rax=0xFFFF_0000 | USER_DS).register("ds") == USER_DS


def test_a_selector_can_be_loaded_from_memory() -> None:
    assert run("8e18", rax=KERNEL_DATA, memory={KERNEL_DATA: q(USER_DS)}).register("ds") == USER_DS


@pytest.mark.parametrize("register", ["fs", "gs"])
def test_loading_fs_or_gs_takes_the_32_bit_base_of_the_descriptor(register: str) -> None:
    parts = {"gdt": {SPARE: descriptor(DATA, base=0x8765_4321)}, f"{register}_base": 1 << 40}

    assert run(MOV[register], rax=SPARE, **parts).register(f"{register}_base") == 0x8765_4321


@pytest.mark.parametrize("register", ["fs", "gs"])
@pytest.mark.parametrize("selector", range(4))
def test_a_null_selector_clears_the_base_on_intel(register: str, selector: int) -> None:
    ended = run(MOV[register], rax=selector, **{register: USER_DS, f"{register}_base": 1 << 40})

    assert [ended.register(register), ended.register(f"{register}_base")] == [selector, 0]


@pytest.mark.parametrize("register", ["fs", "gs"])
@pytest.mark.parametrize(("base", "expected"), [(0, "ended"), (1 << 40, "not modelled: the base of FS or GS after a null selector on AMD")])
def test_what_a_null_selector_leaves_of_a_base_on_amd_is_open(register: str, base: int, expected: str) -> None:
    assert outcome(run(MOV[register], rax=0, profile="amd", **{register: USER_DS, f"{register}_base": base})) == expected


def test_a_descriptor_in_the_ldt() -> None:
    ended = run(MOV["gs"], rax=0xF, ldt={0xF: descriptor(DATA, 3, base=0x1234)})

    assert [ended.register("gs"), ended.register("gs_base")] == [0xF, 0x1234]


def test_without_an_ldt_its_selectors_are_past_the_limit() -> None:
    assert outcome(run(MOV["gs"], rax=0xF, ldtr=0, ldt={0xF: descriptor(DATA, 3)})) == "#GP(0xc)"


@pytest.mark.parametrize(("limit", "expected"), [(0x66, "#GP(0x60)"), (0x67, "ended")])
def test_the_whole_descriptor_must_be_within_the_limit(limit: int, expected: str) -> None:
    assert outcome(run(MOV["ds"], rax=SPARE, gdtr_limit=limit, gdt={SPARE: descriptor(DATA)})) == expected


@pytest.mark.parametrize(("register", "kind"), [("ds", DATA_NOT_ACCESSED), ("ds", CODE & ~1), ("ss", DATA_NOT_ACCESSED)])
def test_a_load_marks_the_descriptor_accessed(register: str, kind: int) -> None:
    ended = run(MOV[register], rax=SPARE, gdt={SPARE: descriptor(kind)})

    assert peek(ended, GDT + SPARE) == descriptor(kind | 1)


def test_a_descriptor_that_is_accessed_already_is_not_written() -> None:
    assert outcome(run(MOV["ds"], rax=KERNEL_DS, paging={(1, GDT): (0, WRITABLE)})) == "ended"
    assert outcome(run(MOV["ds"], rax=SPARE, gdt={SPARE: descriptor(DATA_NOT_ACCESSED)}, paging={(1, GDT): (0, WRITABLE)})) == "#PF(0x3)"


def test_the_accessed_flag_is_set_in_the_ldt_too() -> None:
    ended = run(MOV["ds"], rax=0xC, ldt={0xC: descriptor(DATA_NOT_ACCESSED)})

    assert peek(ended, LDT + 8) == descriptor(DATA)


@pytest.mark.parametrize(("selector", "expected"), [(0x78, "#GP(0x0)"), (0x80, "#GP(0x80)"), (0x98, "#GP(0x98)")])
def test_a_descriptor_at_a_non_canonical_address_faults_with_the_selector(selector: int, expected: str) -> None:
    # The last descriptor below the end of the low half is the one at 0x78, an empty one.
    table = {LAST_USER_PAGE + 0xF80: gdt_bytes()}

    ended = run(MOV["ds"], rax=selector, gdtr_base=LAST_USER_PAGE + 0xF80, memory=table)

    assert outcome(ended) == (expected if selector != 0x78 else "#GP(0x78)")


def test_the_hidden_part_stays_when_the_table_changes() -> None:
    # mov fs, eax; mov [rbx], rcx; swap nothing
    ended = run(MOV["fs"] + "48890b", rax=SPARE, rbx=GDT + SPARE, rcx=0, gdt={SPARE: descriptor(DATA, base=0x99)})

    assert ended.register("fs_base") == 0x99


def test_an_ldtr_that_names_a_system_descriptor_is_needed_for_nothing_else() -> None:
    assert run("90", ldtr=LDT_SELECTOR).register("ldtr") == LDT_SELECTOR
