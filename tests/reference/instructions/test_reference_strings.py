"""MOVS and STOS with and without REP (SDM Vol. 2B, MOVS, STOS and REP)."""

from __future__ import annotations

import pytest
from reference_machine import (
    KERNEL_CODE,
    KERNEL_DATA,
    KERNEL_READONLY,
    KERNEL_STACK,
    PRESENT,
    UNMAPPED,
    USER_DATA,
    frame,
    outcome,
    peek,
    run,
)

from reference.image import Event, EventKind

SOURCE, DESTINATION = KERNEL_DATA + 0x100, KERNEL_DATA + 0x800
DF = 0x400
BYTES = bytes(range(1, 33))
SIZES = [("a4", 1), ("66a5", 2), ("a5", 4), ("48a5", 8)]
STOS_SIZES = [("aa", 1), ("66ab", 2), ("ab", 4), ("48ab", 8)]


@pytest.mark.parametrize(("code", "size"), SIZES)
@pytest.mark.parametrize(("flags", "sign"), [(2, 1), (2 | DF, -1)])
def test_movs_moves_one_element_and_both_pointers(code: str, size: int, flags: int, sign: int) -> None:
    ended = run(code, rsi=SOURCE, rdi=DESTINATION, rcx=9, rflags=flags, memory={SOURCE: BYTES})

    assert peek(ended, DESTINATION, 16) == int.from_bytes(BYTES[:size], "little")
    assert [ended.register(name) for name in ("rsi", "rdi", "rcx", "rflags")] == [SOURCE + sign * size, DESTINATION + sign * size, 9, flags]


@pytest.mark.parametrize(("code", "size"), STOS_SIZES)
@pytest.mark.parametrize(("flags", "sign"), [(2, 1), (2 | DF, -1)])
def test_stos_stores_the_accumulator(code: str, size: int, flags: int, sign: int) -> None:
    value = 0x8877_6655_4433_2211

    ended = run(code, rax=value, rdi=DESTINATION, rsi=5, rflags=flags)

    assert peek(ended, DESTINATION, 8) == value & (1 << 8 * size) - 1
    assert [ended.register(name) for name in ("rsi", "rdi")] == [5, DESTINATION + sign * size]


@pytest.mark.parametrize(("code", "size"), SIZES)
def test_rep_movs_moves_rcx_elements(code: str, size: int) -> None:
    ended = run("f3" + code, rsi=SOURCE, rdi=DESTINATION, rcx=3, memory={SOURCE: BYTES})

    assert peek(ended, DESTINATION, 3 * size + 1) == int.from_bytes(BYTES[: 3 * size], "little")
    assert [ended.register(name) for name in ("rsi", "rdi", "rcx")] == [SOURCE + 3 * size, DESTINATION + 3 * size, 0]


@pytest.mark.parametrize(("code", "size"), SIZES)
@pytest.mark.parametrize("before", [0x800, 3, 1])
@pytest.mark.parametrize("flags", [2, 2 | DF])
def test_what_is_moved_together_is_what_one_iteration_after_the_other_moves(code: str, size: int, before: int, flags: int) -> None:
    source = KERNEL_DATA + 0x1000 - before
    parts = {"rsi": source, "rdi": KERNEL_STACK + 0x120, "rcx": 20, "rflags": flags, "memory": {KERNEL_DATA + 0x800: BYTES * 70}}
    held_back = Event(0, EventKind.INTERRUPT, 0x40)

    together = run("f3" + code, **parts)  # type: ignore[arg-type]
    one_by_one = run("f3" + code, **parts, events=(held_back,))  # type: ignore[arg-type]

    assert (together.registers, together.memory, together.retired) == (one_by_one.registers, one_by_one.memory, 20)
    assert peek(together, KERNEL_STACK + 0x120, size)


def test_an_interrupt_arrives_between_two_iterations_between_pages() -> None:
    arrival = Event(5, EventKind.INTERRUPT, 0x40)

    ended = run("f3a4", rsi=SOURCE, rdi=KERNEL_STACK + 0x100, rcx=9, rflags=0x202, memory={SOURCE: BYTES}, events=(arrival,))

    assert [ended.register("rcx"), ended.deliveries[0].boundary, peek(ended, KERNEL_STACK + 0x100, 6)] == [4, 5, 0x05_0403_0201]


def test_a_run_that_ends_at_its_limit_ends_between_two_iterations() -> None:
    ended = run("f3a4", rsi=SOURCE, rdi=KERNEL_STACK + 0x100, rcx=200, memory={SOURCE: BYTES}, limit=50)

    assert (outcome(ended), ended.register("rcx")) == ("did-not-end", 148)


def test_rep_with_a_count_of_0_does_nothing() -> None:
    ended = run("f3a4", rsi=UNMAPPED, rdi=UNMAPPED, rcx=0)

    assert (outcome(ended), ended.register("rsi")) == ("ended", UNMAPPED)


def test_overlapping_moves_go_byte_by_byte() -> None:
    ended = run("f3a4", rsi=SOURCE, rdi=SOURCE + 1, rcx=4, memory={SOURCE: b"\x01\x02"})

    assert peek(ended, SOURCE, 5) == 0x01_0101_0101


def test_a_67_prefix_uses_32_bit_registers() -> None:
    high = 1 << 40
    ended = run("67f3a4", rsi=high | USER_DATA, rdi=high | USER_DATA + 8, rcx=high | 2, memory={USER_DATA: b"\x05\x06"})

    assert peek(ended, USER_DATA + 8, 2) == 0x0605
    assert [ended.register(name) for name in ("rsi", "rdi", "rcx")] == [USER_DATA + 2, USER_DATA + 10, 0]


def test_a_67_prefix_with_ecx_0_does_nothing() -> None:
    assert outcome(run("67f3aa", rdi=UNMAPPED, rcx=1 << 32)) == "ended"


@pytest.mark.parametrize(("prefix", "base"), [("65", "gs_base"), ("64", "fs_base")])
def test_a_segment_override_is_for_the_source_only(prefix: str, base: str) -> None:
    ended = run(prefix + "a4", rsi=SOURCE - 0x40, rdi=DESTINATION, memory={SOURCE: b"\x77"}, **{base: 0x40})

    assert peek(ended, DESTINATION, 1) == 0x77
    assert outcome(run(prefix + "aa", rdi=DESTINATION, **{base: 1 << 62})) == "ended"


def test_movs_reads_before_it_writes() -> None:
    ended = run("a4", rsi=UNMAPPED, rdi=KERNEL_READONLY)

    assert (outcome(ended), ended.register("rsi")) == ("#PF(0x0)", UNMAPPED)


def test_a_fault_in_the_middle_keeps_what_was_done() -> None:
    second = KERNEL_DATA + 0x1000

    ended = run("f3aa", rax=7, rdi=second - 3, rcx=5, paging={(1, second): (0, PRESENT)})

    assert (outcome(ended), ended.register("cr2")) == ("#PF(0x2)", second)
    assert [ended.register("rdi"), ended.register("rcx"), peek(ended, second - 3, 3)] == [second, 2, 0x07_0707]
    assert (frame(ended, error_code=True).rip, frame(ended, error_code=True).rflags) == (KERNEL_CODE, 0x1_0002)


@pytest.mark.parametrize("code", ["f2a4", "f2aa"])
def test_repne_is_defined_for_comparisons_only(code: str) -> None:
    assert outcome(run(code, rdi=DESTINATION, rsi=SOURCE, rcx=1)).startswith("not modelled: ")
