"""LAR, LSL, VERR and VERW: asking about a selector without loading it (SDM Vol. 2A and 2D)."""

from __future__ import annotations

import pytest
from reference_machine import (
    AVAILABLE_TSS,
    CODE,
    CONFORMING,
    DATA,
    EXECUTE_ONLY,
    KERNEL_CS,
    KERNEL_DATA,
    KERNEL_DS,
    LAST_USER_PAGE,
    LDT_TYPE,
    READ_ONLY_DATA,
    SPARE,
    TSS_SELECTOR,
    UNMAPPED,
    USER_CS,
    USER_DS,
    descriptor,
    outcome,
    q,
    run,
    system,
)

ONES = 0xFFFF_FFFF_FFFF_FFFF
ZF = 0x40

SMALL = {"limit": 0x1234, "granular": False}
"""Segments without a limit in bits 19:16, so that LAR's result is defined."""
VISIBLE = [
    pytest.param(SPARE, descriptor(DATA, **SMALL), 0, True, id="data"),
    pytest.param(SPARE, descriptor(CODE, long=True, **SMALL), 0, True, id="code"),
    pytest.param(SPARE, descriptor(DATA, present=False, **SMALL), 0, True, id="presence-does-not-matter"),
    pytest.param(0, None, 0, False, id="null"),
    pytest.param(3, None, 0, False, id="null-with-rpl"),
    pytest.param(0x100, None, 0, False, id="past-the-limit"),
    pytest.param(SPARE, descriptor(DATA, **SMALL), 3, False, id="cpl-above-the-dpl"),
    pytest.param(SPARE | 3, descriptor(DATA, **SMALL), 0, False, id="rpl-above-the-dpl"),
    pytest.param(SPARE | 3, descriptor(DATA, 3, **SMALL), 3, True, id="user-data-at-cpl-3"),
    pytest.param(SPARE | 3, descriptor(CONFORMING, **SMALL), 3, True, id="conforming-code-is-always-visible"),
]


@pytest.mark.parametrize("flags", [2, 2 | ZF])
@pytest.mark.parametrize(("selector", "entry", "cpl", "known"), VISIBLE)
def test_lar_and_lsl_answer_for_visible_descriptors(selector: int, entry: int | None, cpl: int, known: bool, flags: int) -> None:
    gdt = {} if entry is None else {SPARE: entry}

    for code, result in (("0f02c1", None if entry is None else entry >> 32 & 0xFFFF00), ("0f03c1", 0x1234)):
        ended = run(code, cpl, rax=ONES, rcx=0xFFFF_0000 | selector, gdt=gdt, rflags=flags)
        assert (ended.register("rax"), ended.register("rflags") & ZF) == ((result, ZF) if known else (ONES, 0))


@pytest.mark.parametrize("kind", range(16))
def test_system_types_that_lar_and_lsl_know_in_ia_32e_mode(kind: int) -> None:
    entry = {SPARE: system(kind, KERNEL_DATA, 0x67)}

    rights, limit = (run(code, rax=0, rcx=SPARE, gdt=entry).register("rflags") & ZF for code in ("0f02c1", "0f03c1"))

    assert bool(rights) == (kind in (0x2, 0x9, 0xB, 0xC))
    assert bool(limit) == (kind in (0x2, 0x9, 0xB))


@pytest.mark.parametrize("code", ["0f02c1", "0f03c1"])
@pytest.mark.parametrize(
    ("selector", "entry"),
    [
        pytest.param(SPARE, system(AVAILABLE_TSS, 0, 0x67, upper_type=0x10), id="upper-half-with-a-type"),
        pytest.param(0xF8, q(descriptor(LDT_TYPE, segment=False, **SMALL)), id="upper-half-past-the-limit"),
    ],
)
def test_a_system_descriptor_without_a_proper_upper_half_is_open(code: str, selector: int, entry: bytes) -> None:
    assert outcome(run(code, rcx=selector, gdt={selector: entry})) == "not modelled: a system descriptor without a proper upper half"


def test_bits_of_lar_that_are_undefined_are_not_modelled() -> None:
    assert outcome(run("0f02c1", rcx=KERNEL_DS)) == "not modelled: lar of a segment with a limit in bits 19:16"


def test_lar_at_16_bits_gives_type_and_dpl_only() -> None:
    ended = run("660f02c1", rax=ONES, rcx=KERNEL_DS)

    assert ended.register("rax") == 0xFFFF_FFFF_FFFF_9300


@pytest.mark.parametrize(
    ("code", "selector", "after"),
    [
        pytest.param("0f03c1", KERNEL_DS, 0xFFFF_FFFF, id="pages-as-bytes"),
        pytest.param("480f03c1", KERNEL_DS, 0xFFFF_FFFF, id="zero-extended"),
        pytest.param("660f03c1", TSS_SELECTOR, 0xFFFF_FFFF_FFFF_0067, id="16-bit"),
    ],
)
def test_lsl_gives_the_limit_in_bytes(code: str, selector: int, after: int) -> None:
    assert run(code, rax=ONES, rcx=selector).register("rax") == after


@pytest.mark.parametrize(
    ("selector", "entry", "readable", "writable"),
    [
        pytest.param(KERNEL_DS, None, True, True, id="data"),
        pytest.param(KERNEL_CS, None, True, False, id="readable-code"),
        pytest.param(SPARE, descriptor(READ_ONLY_DATA), True, False, id="read-only-data"),
        pytest.param(SPARE, descriptor(EXECUTE_ONLY), False, False, id="execute-only-code"),
        pytest.param(TSS_SELECTOR, None, False, False, id="system"),
        pytest.param(0, None, False, False, id="null"),
        pytest.param(0x100, None, False, False, id="past-the-limit"),
        pytest.param(KERNEL_DS | 3, None, False, False, id="not-visible"),
        pytest.param(SPARE | 3, descriptor(CONFORMING), True, False, id="conforming-code"),
        pytest.param(USER_DS, None, True, True, id="user-data"),
        pytest.param(USER_CS, None, True, False, id="user-code"),
    ],
)
@pytest.mark.parametrize("flags", [2, 2 | ZF])
def test_verr_and_verw(selector: int, entry: int | None, readable: bool, writable: bool, flags: int) -> None:
    gdt = {} if entry is None else {SPARE: entry}

    for code, holds in (("0f00e1", readable), ("0f00e9", writable)):
        assert run(code, rcx=selector, gdt=gdt, rflags=flags).register("rflags") == (flags | ZF if holds else flags & ~ZF)


@pytest.mark.parametrize("code", ["0f02c1", "0f03c1", "0f00e1", "0f00e9"])
def test_asking_about_a_selector_defines_zf_only(code: str) -> None:
    # div leaves every flag undefined
    assert run("f7f3" + code, rax=1, rbx=1, rcx=0).undefined.rflags == 0x8D5 & ~ZF


def test_a_selector_is_read_as_16_bits_of_memory() -> None:
    last = LAST_USER_PAGE + 0xFFE

    assert run("0f0201", rcx=last, memory={last: b"\x40\x00"}).register("rflags") & ZF
    assert outcome(run("0f00e1".replace("e1", "21"), rcx=UNMAPPED)) == "#PF(0x0)"


@pytest.mark.parametrize("selector", [0x80, 0x78])
def test_a_descriptor_table_across_the_end_of_the_low_half(selector: int) -> None:
    # lar of a descriptor that stands where no canonical address is
    ended = run("0f02c1", rcx=selector | 4, ldt={}, ldtr=SPARE, gdt={SPARE: system(LDT_TYPE, LAST_USER_PAGE + 0xF80, 0xFF)})

    assert outcome(ended) == ("not modelled: a system structure at a non-canonical address" if selector == 0x80 else "ended")
