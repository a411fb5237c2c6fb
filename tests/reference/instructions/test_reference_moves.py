"""MOV and its kin (SDM Vol. 2A and 2B)."""

from __future__ import annotations

import pytest
from reference_machine import (
    KERNEL_CS,
    KERNEL_DATA,
    KERNEL_DS,
    KERNEL_READONLY,
    NOT_CANONICAL,
    UNMAPPED,
    USER_DS,
    outcome,
    peek,
    run,
)

ONES = 0xFFFF_FFFF_FFFF_FFFF
VALUE = 0x8877_6655_4433_2281


@pytest.mark.parametrize(
    ("code", "after"),
    [
        pytest.param("88c8", 0xFFFF_FFFF_FFFF_FF81, id="8-bit"),
        pytest.param("88cc", 0xFFFF_FFFF_FFFF_81FF, id="8-bit-high"),
        pytest.param("6689c8", 0xFFFF_FFFF_FFFF_2281, id="16-bit"),
        pytest.param("89c8", 0x4433_2281, id="32-bit-clears-the-rest"),
        pytest.param("4889c8", VALUE, id="64-bit"),
        pytest.param("c7c0feffffff", 0xFFFF_FFFE, id="32-bit-immediate"),
        pytest.param("48c7c0feffffff", ONES - 1, id="sign-extended-immediate"),
        pytest.param("48b8efcdab8967452301", 0x0123_4567_89AB_CDEF, id="64-bit-immediate"),
        pytest.param("0fb6c1", 0x81, id="movzx-byte"),
        pytest.param("660fb6c1", 0xFFFF_FFFF_FFFF_0081, id="movzx-byte-to-16-bits"),
        pytest.param("480fb7c1", 0x2281, id="movzx-word"),
        pytest.param("0fbec1", 0xFFFF_FF81, id="movsx-byte"),
        pytest.param("660fbec1", 0xFFFF_FFFF_FFFF_FF81, id="movsx-byte-to-16-bits"),
        pytest.param("480fbec1", 0xFFFF_FFFF_FFFF_FF81, id="movsx-byte-to-64-bits"),
        pytest.param("480fbfc1", 0x2281, id="movsx-word"),
        pytest.param("4863c1", 0x4433_2281, id="movsxd"),
        pytest.param("63c1", 0x4433_2281, id="movsxd-without-rex-w"),
        pytest.param("8cd8", USER_DS, id="from-segment-register"),
        pytest.param("488cd8", USER_DS, id="from-segment-register-to-64-bits"),
        pytest.param("668cd8", 0xFFFF_FFFF_FFFF_0000 | USER_DS, id="from-segment-register-to-16-bits"),
        pytest.param("488d4103", VALUE + 3, id="lea"),
        pytest.param("8d4103", 0x4433_2284, id="lea-32-bit-destination"),
        pytest.param("668d4103", 0xFFFF_FFFF_FFFF_2284, id="lea-16-bit-destination"),
        pytest.param("67488d4103", 0x4433_2284, id="lea-32-bit-address"),
        pytest.param("65488d4103", VALUE + 3, id="lea-without-a-segment-base"),
        pytest.param("488d04cd10000000", (VALUE * 8 + 16) & ONES, id="lea-with-scale"),
        pytest.param("90", ONES, id="nop"),
    ],
)
def test_moves_into_rax(code: str, after: int) -> None:
    ended = run(code, rax=ONES, rcx=VALUE, ds=USER_DS, gs_base=0x1000, rflags=0x8D7)

    assert (ended.register("rax"), ended.register("rflags")) == (after, 0x8D7)


@pytest.mark.parametrize("address", [NOT_CANONICAL, UNMAPPED])
def test_lea_accesses_nothing(address: int) -> None:
    assert run("488d00", rax=address).register("rax") == address


def test_a_selector_is_stored_as_16_bits_whatever_the_operand_size() -> None:
    for code in ("8c08", "488c08"):  # mov [rax], cs
        ended = run(code, rax=KERNEL_DATA, memory={KERNEL_DATA: b"\xff" * 8})
        assert peek(ended, KERNEL_DATA) == 0xFFFF_FFFF_FFFF_0000 | KERNEL_CS


@pytest.mark.parametrize(
    ("code", "rax", "rcx"),
    [
        pytest.param("4891", 2, 1, id="64-bit"),
        pytest.param("87c8", 2, 1, id="32-bit"),
        pytest.param("86cc", 0x0201, 0, id="bytes-of-two-registers"),
        pytest.param("86e0", 0x0100, 2, id="bytes-of-one-register"),
    ],
)
def test_xchg(code: str, rax: int, rcx: int) -> None:
    ended = run(code, rax=1, rcx=2)

    assert [ended.register("rax"), ended.register("rcx")] == [rax, rcx]


def test_xchg_with_memory() -> None:
    ended = run("488708", rax=KERNEL_DATA, rcx=5, memory={KERNEL_DATA: b"\7"})

    assert [ended.register("rcx"), peek(ended, KERNEL_DATA)] == [7, 5]


def test_xchg_that_faults_changes_nothing() -> None:
    ended = run("488708", rax=KERNEL_READONLY, rcx=5)

    assert (outcome(ended), ended.register("rcx")) == ("#PF(0x3)", 5)


def test_cmov_reads_its_source_even_if_the_condition_is_false() -> None:
    assert outcome(run("480f4400", rax=UNMAPPED, rflags=2)) == "#PF(0x0)"


@pytest.mark.parametrize(
    ("code", "size", "register"),
    [
        pytest.param("0fb208", 4, "ss", id="lss"),
        pytest.param("0fb408", 4, "fs", id="lfs"),
        pytest.param("0fb508", 4, "gs", id="lgs"),
        pytest.param("660fb508", 2, "gs", id="lgs-16-bit"),
        pytest.param("480fb508", 8, "gs", id="lgs-64-bit"),
    ],
)
def test_far_pointers_are_an_offset_and_a_selector(code: str, size: int, register: str) -> None:
    pointer = bytes(range(0x81, 0x81 + size)) + bytes([KERNEL_DS, 0])

    ended = run(code, rax=KERNEL_DATA, rcx=ONES, memory={KERNEL_DATA: pointer})

    offset = int.from_bytes(pointer[:size], "little")
    assert ended.register(register) == KERNEL_DS
    assert ended.register("rcx") == (ONES & ~0xFFFF | offset if size == 2 else offset)


@pytest.mark.parametrize("code", ["480fb208", "480fb408", "480fb508"])
def test_a_far_pointer_has_at_most_32_bits_of_offset_on_amd(code: str) -> None:
    pointer = bytes.fromhex("81828384") + bytes([KERNEL_DS, 0])

    assert run(code, rax=KERNEL_DATA, rcx=ONES, memory={KERNEL_DATA: pointer}, profile="amd").register("rcx") == 0x8483_8281


def test_a_far_pointer_with_a_bad_selector_changes_nothing() -> None:
    ended = run("0fb508", rax=KERNEL_DATA, rcx=ONES, memory={KERNEL_DATA: b"\1\0\0\0\0\1"})

    assert (outcome(ended), ended.register("rcx"), ended.register("gs")) == ("#GP(0x100)", ONES, 0)
