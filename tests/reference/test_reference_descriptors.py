"""Descriptors and gates from their bytes (SDM Vol. 3A, 3.4.5, 6.2 and 7.14.1)."""

from __future__ import annotations

import struct

import pytest
from reference_machine import (
    AVAILABLE_TSS,
    BUSY_TSS,
    CODE,
    CONFORMING,
    DATA,
    EXECUTE_ONLY,
    LDT_TYPE,
    READ_ONLY_DATA,
    descriptor,
    gate,
)  # fmt: skip

from reference.descriptors import Descriptor, Gate, Segment, flat_code, flat_stack

FLAT_USER_CODE = 0x00AF_FB00_0000_FFFF
"""Linux's 64-bit user code segment, as its sources print it."""


def test_the_fields_of_a_well_known_descriptor() -> None:
    known = Descriptor(FLAT_USER_CODE)

    assert (known.base, known.limit, known.type, known.dpl) == (0, 0xFFFF_FFFF, CODE, 3)
    assert (known.is_segment, known.present, known.long, known.default_big) == (True, True, True, False)
    assert descriptor(CODE, 3, long=True) == FLAT_USER_CODE


@pytest.mark.parametrize("base", [0, 0x1234_5678, 0xFFFF_FFFF, 0x00FF_0000, 0xFF00_0000])
def test_the_base_is_in_three_pieces(base: int) -> None:
    assert Descriptor(descriptor(DATA, base=base)).base == base


@pytest.mark.parametrize(
    ("limit", "granular", "in_bytes"),
    [(0x12345, False, 0x12345), (0xFFFFF, False, 0xFFFFF), (0, True, 0xFFF), (0x12345, True, 0x1234_5FFF), (0xFFFFF, True, 0xFFFF_FFFF)],
)
def test_the_limit_counts_bytes_or_pages(limit: int, granular: bool, in_bytes: int) -> None:
    assert Descriptor(descriptor(DATA, limit=limit, granular=granular)).limit == in_bytes


@pytest.mark.parametrize(
    ("kind", "segment", "expected"),
    [
        pytest.param(CODE, True, {"code", "readable"}, id="code-execute-read"),
        pytest.param(EXECUTE_ONLY, True, {"code"}, id="code-execute-only"),
        pytest.param(CONFORMING, True, {"code", "readable", "conforming"}, id="conforming-execute-read"),
        pytest.param(0xC, True, {"code", "conforming"}, id="conforming-execute-only"),
        pytest.param(DATA, True, {"data", "readable", "writable"}, id="data-read-write"),
        pytest.param(READ_ONLY_DATA, True, {"data", "readable"}, id="data-read-only"),
        pytest.param(0x7, True, {"data", "readable", "writable"}, id="expand-down-read-write"),
        pytest.param(0x5, True, {"data", "readable"}, id="expand-down-read-only"),
        pytest.param(LDT_TYPE, False, set(), id="ldt"),
        pytest.param(AVAILABLE_TSS, False, set(), id="available-tss"),
        pytest.param(BUSY_TSS, False, set(), id="busy-tss"),
        pytest.param(0xF, False, set(), id="trap-gate"),
    ],
)
def test_what_the_type_means(kind: int, segment: bool, expected: set[str]) -> None:
    it = Descriptor(descriptor(kind, segment=segment))

    found = {
        "code": it.is_code, "data": it.is_data, "readable": it.is_readable, "writable": it.is_writable_data, "conforming": it.is_conforming,
    }  # fmt: skip
    assert {name for name, holds in found.items() if holds} == expected


def test_access_rights_leave_out_base_and_limit() -> None:
    assert Descriptor(0xFFFF_FFFF_FFFF_FFFF).access_rights == 0x00F0_FF00


@pytest.mark.parametrize("long", [True, False])
def test_the_fixed_code_segment_of_a_fast_system_call(long: bool) -> None:
    segment = flat_code(0x33, 3, long)

    assert (segment.selector, segment.base, segment.limit, segment.descriptor.type, segment.descriptor.dpl) == (
        0x33,
        0,
        0xFFFF_FFFF,
        CODE,
        3,
    )
    assert (segment.descriptor.long, segment.descriptor.default_big, segment.descriptor.present) == (long, not long, True)


def test_the_fixed_stack_segment_of_a_fast_system_call() -> None:
    segment = flat_stack(0x18, 0)

    assert (segment.base, segment.limit, segment.descriptor.type, segment.descriptor.dpl) == (0, 0xFFFF_FFFF, DATA, 0)
    assert (segment.descriptor.default_big, segment.descriptor.present, segment.usable) == (True, True, True)


def test_a_null_segment_cannot_be_used() -> None:
    segment = Segment.null(3, base=7)

    assert (segment.selector, segment.base, segment.limit, segment.usable) == (3, 7, 0, False)


def test_the_fields_of_a_gate() -> None:
    it = Gate(*struct.unpack("<QQ", gate(0x1122_3344_5566_7788, 0x99AA, kind=0xE, dpl=2, ist=5)))

    assert (it.offset, it.selector, it.ist, it.dpl, it.type, it.present) == (0x1122_3344_5566_7788, 0x99AA, 5, 2, 0xE, True)
    assert not Gate(*struct.unpack("<QQ", gate(0, present=False))).present


@pytest.mark.parametrize("kind", range(16))
def test_only_64_bit_interrupt_and_trap_gates_belong_in_the_idt(kind: int) -> None:
    assert Gate(*struct.unpack("<QQ", gate(0, kind=kind))).is_interrupt_or_trap == (kind in (0xE, 0xF))
    assert not Gate(*struct.unpack("<QQ", gate(0, kind=kind, segment=True))).is_interrupt_or_trap
