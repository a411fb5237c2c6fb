"""Data in compatibility mode: effective addresses, and the base, limit and type of each segment (SDM Vol. 3A, 3.4 and 6.3)."""

from __future__ import annotations

import pytest
from reference_compatibility import run32, with_segment
from reference_machine import (
    CODE,
    DATA,
    EXECUTE_ONLY,
    READ_ONLY_DATA,
    USER_DATA,
    USER_DS,
    USER_READONLY,
    outcome,
)

EXPAND_DOWN = 0x7
LOAD = "8b03"
"""mov eax, [ebx]"""
STORE = "8903"
"""mov [ebx], eax"""
WORDS = {USER_DATA: bytes.fromhex("78563412f0debc9a")}


def test_a_segment_base_counts() -> None:
    assert with_segment("ds", DATA, LOAD, base=0x1000, rbx=USER_DATA - 0x1000, memory=WORDS).register("rax") == 0x1234_5678


def test_a_linear_address_has_32_bits() -> None:
    assert with_segment("ds", DATA, LOAD, base=0xFFFF_F000, rbx=USER_DATA + 0x1000, memory=WORDS).register("rax") == 0x1234_5678


@pytest.mark.parametrize(
    ("code", "registers"),
    [
        pytest.param("8b44cb08", {"rbx": 0xFFFF_FFF8, "rcx": USER_DATA >> 3}, id="base-index-displacement"),
        pytest.param("8b43fc", {"rbx": USER_DATA + 4}, id="negative-displacement"),
        pytest.param("a1" + USER_DATA.to_bytes(4, "little").hex(), {}, id="moffs"),
        pytest.param("8b05" + USER_DATA.to_bytes(4, "little").hex(), {}, id="displacement-alone"),
    ],
)
def test_effective_addresses_wrap_at_32_bits(code: str, registers: dict[str, int]) -> None:
    assert run32(code, memory=WORDS, **registers).register("rax") == 0x1234_5678


@pytest.mark.parametrize(
    "code",
    [
        pytest.param("678b00", id="bx-si"),
        pytest.param("67a12000", id="moffs16"),
        pytest.param("678b062000", id="displacement-alone"),
    ],
)
def test_a_67_prefix_leaves_addresses_of_16_bits(code: str) -> None:
    ended = with_segment("ds", DATA, code, base=USER_DATA, rbx=0xABC_8010, rsi=0x1_8010, memory={USER_DATA + 0x20: b"\x78\x56\x34\x12"})

    assert ended.register("rax") == 0x1234_5678


def test_lea_computes_an_offset_without_a_segment() -> None:
    assert with_segment("ds", DATA, "8d43ff", base=0x1000, limit=0, rbx=0).register("rax") == 0xFFFF_FFFF


@pytest.mark.parametrize(("name", "prefix"), [("es", "26"), ("fs", "64"), ("gs", "65")])
def test_each_override_uses_its_segment(name: str, prefix: str) -> None:
    base = {f"{name}_base": 0x1000} if name in ("fs", "gs") else {}

    ended = with_segment(name, DATA, prefix + LOAD, base=0x1000, rbx=USER_DATA - 0x1000, memory=WORDS, **base)

    assert ended.register("rax") == 0x1234_5678


@pytest.mark.parametrize(("name", "prefix"), [("fs", "64"), ("gs", "65")])
def test_the_upper_half_of_the_base_of_fs_and_gs_does_not_count(name: str, prefix: str) -> None:
    parts = {name: USER_DS, f"{name}_base": 0xFFFF_8880_0000_1000}

    assert run32(prefix + LOAD, rbx=USER_DATA - 0x1000, memory=WORDS, **parts).register("rax") == 0x1234_5678


@pytest.mark.parametrize(
    ("name", "prefix", "base"),
    [("ds", "", {}), ("es", "26", {}), ("fs", "64", {"fs_base": USER_DATA}), ("gs", "65", {"gs_base": USER_DATA})],
)
@pytest.mark.parametrize("access", [LOAD, STORE])
def test_a_null_selector_gives_no_access(name: str, prefix: str, base: dict[str, int], access: str) -> None:
    assert outcome(run32(prefix + access, rbx=USER_DATA, **{name: 0}, **base)) == "#GP(0x0)"


@pytest.mark.parametrize(
    ("access", "offset", "expected"),
    [
        pytest.param("8a03", 0xFFF, "ended", id="the-last-byte"),
        pytest.param("8a03", 0x1000, "#GP(0x0)", id="the-byte-behind"),
        pytest.param("668b03", 0xFFE, "ended", id="the-last-word"),
        pytest.param("668b03", 0xFFF, "#GP(0x0)", id="a-word-across"),
        pytest.param(LOAD, 0xFFC, "ended", id="the-last-doubleword"),
        pytest.param(LOAD, 0xFFD, "#GP(0x0)", id="a-doubleword-across"),
        pytest.param(STORE, 0xFFC, "ended", id="store"),
        pytest.param(STORE, 0xFFD, "#GP(0x0)", id="a-store-across"),
        pytest.param(LOAD, 0xFFFF_FFFF, "#GP(0x0)", id="far-away"),
    ],
)
def test_the_limit_of_a_segment(access: str, offset: int, expected: str) -> None:
    assert outcome(with_segment("ds", DATA, access, base=USER_DATA, limit=0xFFF, granular=False, rbx=offset)) == expected


def test_an_access_past_the_limit_of_ss_raises_ss() -> None:
    assert outcome(with_segment("ss", DATA, "368b03", limit=0x422, rbx=0x42_3000)) == "#SS(0x0)"
    assert outcome(with_segment("ss", DATA, "8b4500", limit=0x422, rbp=0x42_3000)) == "#SS(0x0)"
    assert outcome(with_segment("ss", DATA, "3e8b4500", limit=0x422, rbp=USER_DATA)) == "ended"


@pytest.mark.parametrize(
    ("big", "offset", "expected"),
    [
        pytest.param(True, 0xFFF, "#GP(0x0)", id="at-the-limit"),
        pytest.param(True, 0x1000, "ended", id="above-the-limit"),
        pytest.param(True, USER_DATA - 0x40_0000 + 0x100, "ended", id="far-above"),
        pytest.param(False, 0x1FFC, "ended", id="16-bit-and-below-64-kbytes"),
        pytest.param(False, 0xFFFD, "#GP(0x0)", id="16-bit-and-across-64-kbytes"),
    ],
)
def test_an_expand_down_segment_begins_above_its_limit(big: bool, offset: int, expected: str) -> None:
    base = USER_DATA - 0x1000 if offset < 0x1_0000 else 0x40_0000

    ended = with_segment("ds", EXPAND_DOWN, LOAD, base=base, limit=0xFFF, granular=False, big=big, rbx=offset)

    assert outcome(ended) == expected


@pytest.mark.parametrize("kind", [DATA, EXPAND_DOWN])
def test_an_access_across_the_end_of_4_gbytes_is_open(kind: int) -> None:
    limit = {"limit": 0, "granular": False} if kind == EXPAND_DOWN else {}

    assert outcome(with_segment("ds", kind, LOAD, rbx=0xFFFF_FFFE, **limit)) == "not modelled: an access across the end of 4 GBytes"


def test_a_linear_address_across_the_end_of_4_gbytes_is_open() -> None:
    ended = with_segment("ds", DATA, LOAD, base=0xFFFF_F000, rbx=0xFFE)

    assert outcome(ended) == "not modelled: an access across the end of 4 GBytes"


@pytest.mark.parametrize(
    ("name", "kind", "code", "expected"),
    [
        pytest.param("ds", READ_ONLY_DATA, LOAD, "ended", id="read-of-read-only-data"),
        pytest.param("ds", READ_ONLY_DATA, STORE, "#GP(0x0)", id="write-of-read-only-data"),
        pytest.param("ds", CODE, LOAD, "ended", id="read-of-readable-code"),
        pytest.param("ds", CODE, STORE, "#GP(0x0)", id="write-of-code"),
        pytest.param("cs", CODE, "2e" + LOAD, "ended", id="read-through-cs"),
        pytest.param("cs", CODE, "2e" + STORE, "#GP(0x0)", id="write-through-cs"),
        pytest.param("cs", EXECUTE_ONLY, "2e" + LOAD, "#GP(0x0)", id="read-of-execute-only-code"),
    ],
)
def test_the_type_of_a_segment(name: str, kind: int, code: str, expected: str) -> None:
    assert outcome(with_segment(name, kind, code, rbx=USER_DATA)) == expected


@pytest.mark.parametrize("rbx", [USER_DATA, 0x9999_0000])
def test_what_is_rewritten_must_be_writable_before_it_is_read(rbx: int) -> None:
    assert outcome(with_segment("ds", READ_ONLY_DATA, "0103", rbx=rbx)) == "#GP(0x0)"


def test_segments_come_before_paging() -> None:
    assert outcome(with_segment("ds", DATA, LOAD, limit=0x41F, rbx=0x42_0000, granular=True)) == "#GP(0x0)"
    assert outcome(run32(STORE, rbx=USER_READONLY)) == "#PF(0x7)"
    assert outcome(run32(LOAD, rbx=0x9999_0000)) == "#PF(0x4)"


def test_alignment_is_checked() -> None:
    assert outcome(run32(LOAD, rbx=USER_DATA + 1, rflags=0x4_0002, cr0=0x8005_0033)) == "#AC(0x0)"


def test_data_breakpoints_compare_the_linear_address() -> None:
    ended = with_segment("ds", DATA, STORE, base=0x1000, rbx=USER_DATA - 0x1000, dr1=USER_DATA, dr7=0xD0_0404)

    assert (outcome(ended), ended.register("dr6") & 0xF) == ("#DB", 2)
