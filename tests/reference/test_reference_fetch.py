"""Fetching and decoding: pages, canonical addresses, invalid and overlong encodings, differences between vendors."""

from __future__ import annotations

import pytest
from reference_machine import (
    KERNEL_CODE,
    KERNEL_DATA,
    KERNEL_RSP,
    LAST_USER_PAGE,
    NOT_CANONICAL,
    PRESENT,
    UNMAPPED,
    USER_CODE,
    USER_DATA,
    frame,
    image,
    outcome,
    run,
)  # fmt: skip

from reference import fetch
from reference.decode import Dialect
from reference.run import run as run_image

SECOND = USER_CODE + 0x1000


@pytest.mark.parametrize(
    ("address", "cpl", "expected"),
    [
        pytest.param(NOT_CANONICAL, 0, "#GP(0x0)", id="not-canonical"),
        pytest.param(UNMAPPED, 0, "#PF(0x10)", id="missing-page"),
        pytest.param(USER_DATA, 3, "#PF(0x15)", id="no-execute-page"),
    ],
)
def test_a_fetch_that_faults_returns_to_the_target(address: int, cpl: int, expected: str) -> None:
    code = "c3" if address != NOT_CANONICAL else "90"
    parts = {"memory": {0xFFFF_8880_0002_1000 if cpl == 0 else 0x42_1000: address.to_bytes(8, "little")}}

    ended = run(code, cpl, **parts) if code == "c3" else run(rip=address)

    assert (outcome(ended), frame(ended, error_code=True).rip) == (expected, address)


def test_an_instruction_that_ends_with_the_page_needs_no_second_page() -> None:
    absent = {(1, SECOND): (0, PRESENT)}

    assert outcome(run("90 cdf1", 3, rip=SECOND - 3, memory={SECOND - 3: b"\x90\xcd\xf1"}, paging=absent)) == "ended"


@pytest.mark.parametrize("here", range(1, 10))
def test_an_instruction_across_two_pages_takes_bytes_from_both(here: int) -> None:
    # mov rax, 0x1122334455667788
    ended = run("48b88877665544332211", 3, rip=SECOND - here)

    assert ended.register("rax") == 0x1122_3344_5566_7788


@pytest.mark.parametrize("here", range(1, 10))
def test_a_fault_on_the_second_page_reports_its_first_byte_and_the_instruction(here: int) -> None:
    ended = run(
        "", 3, rip=SECOND - here, memory={SECOND - here: bytes.fromhex("48b88877665544332211")[:here]}, paging={(1, SECOND): (0, PRESENT)}
    )

    assert (outcome(ended), ended.register("cr2"), frame(ended, error_code=True).rip) == ("#PF(0x14)", SECOND, SECOND - here)


def test_whether_an_invalid_instruction_reaches_into_a_missing_page_is_open() -> None:
    last = SECOND - 1

    ended = run("", 3, rip=last, memory={last: b"\x06"}, paging={(1, SECOND): (0, PRESENT)})

    assert outcome(ended) == "not modelled: an invalid instruction at the end of a page"
    assert outcome(run("", 3, rip=last, memory={last: b"\x06"})) == "#UD"


def test_whether_ud0_reads_its_modrm_byte_is_open() -> None:
    ended = run("", 3, rip=SECOND - 2, memory={SECOND - 2: b"\x0f\xff"}, paging={(1, SECOND): (0, PRESENT)})

    assert outcome(ended) == "not modelled: ud0 at the end of a page: not every processor reads its ModRM byte"


def test_execution_that_runs_off_the_low_half_faults_where_it_arrives() -> None:
    ended = run("", 3, rip=LAST_USER_PAGE + 0xFFF, memory={LAST_USER_PAGE + 0xFFF: b"\x90"})

    assert (outcome(ended), frame(ended, error_code=True).rip) == ("#GP(0x0)", NOT_CANONICAL)


def test_an_instruction_across_the_end_of_the_low_half_faults() -> None:
    ended = run("", 3, rip=LAST_USER_PAGE + 0xFFF, memory={LAST_USER_PAGE + 0xFFF: b"\x0f"})

    assert (outcome(ended), frame(ended, error_code=True).rip) == ("#GP(0x0)", LAST_USER_PAGE + 0xFFF)


@pytest.mark.parametrize(
    "code",
    [
        pytest.param("06", id="push-es"),
        pytest.param("0e", id="push-cs"),
        pytest.param("1f", id="pop-ds"),
        pytest.param("27", id="daa"),
        pytest.param("60", id="pusha"),
        pytest.param("9a000000001000", id="call-far-immediate"),
        pytest.param("ea000000001000", id="jmp-far-immediate"),
        pytest.param("ce", id="into"),
        pytest.param("d6", id="salc"),
        pytest.param("c400", id="les"),
        pytest.param("c500", id="lds"),
        pytest.param("8ec8", id="mov-to-cs"),
        pytest.param("8ef0", id="mov-to-segment-6"),
        pytest.param("8cf0", id="mov-from-segment-6"),
        pytest.param("0f20c8", id="mov-from-cr1"),
        pytest.param("0f22e8", id="mov-to-cr5"),
        pytest.param("440f21c0", id="mov-from-dr8"),
        pytest.param("440f23c0", id="mov-to-dr8"),
        pytest.param("f090", id="lock-nop"),
        pytest.param("f001c0", id="lock-with-a-register"),
        pytest.param("f0480301", id="lock-with-a-memory-source"),
        pytest.param("0f00f0", id="group-6-slot-6"),
        pytest.param("8dc0", id="lea-of-a-register"),
        pytest.param("0f0b", id="ud2"),
        pytest.param("0fb9c0", id="ud1"),
        pytest.param("0fffc0", id="ud0"),
        pytest.param("fff8", id="group-5-slot-7"),
        pytest.param("ffe8", id="far-jmp-through-a-register"),
        pytest.param("8fc8", id="pop-slot-1"),
    ],
)
def test_encodings_that_64_bit_mode_does_not_have_raise_ud(code: str) -> None:
    assert outcome(run(code, rax=KERNEL_DATA)) == "#UD"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        pytest.param("66" * 14 + "90", "ended", id="15-bytes"),
        pytest.param("66" * 15 + "90", "not modelled: instruction longer than 15 bytes", id="16-bytes"),
    ],
)
def test_an_instruction_has_at_most_15_bytes(code: str, expected: str) -> None:
    assert outcome(run(code)) == expected


def test_ud_comes_before_the_privilege_check() -> None:
    assert outcome(run("0f20c8", 3)) == "#UD"


@pytest.mark.parametrize(
    ("code", "intel", "amd"),
    [
        pytest.param("66c3", 8, 2, id="ret"),
        pytest.param("66ffd0", -8, -2, id="call-indirect"),
    ],
)
def test_a_66_prefix_on_a_near_branch_is_ignored_by_intel_and_cuts_amds_operand(code: str, intel: int, amd: int) -> None:
    parts = {"rax": KERNEL_CODE, "memory": {KERNEL_RSP: KERNEL_CODE.to_bytes(8, "little")}, "limit": 1}

    assert run(code, profile="intel", **parts).register("rsp") - KERNEL_RSP == intel
    assert run(code, profile="amd", **parts).register("rsp") - KERNEL_RSP == amd


@pytest.mark.parametrize("profile", ["intel", "amd"])
def test_prefixes_change_no_decoding_that_follows(profile: str) -> None:
    assert run("66eb02 0f0b 90", profile=profile, limit=1).register("rip") == (
        KERNEL_CODE + 5 if profile == "intel" else KERNEL_CODE + 5 & 0xFFFF
    )


def test_what_was_decoded_is_remembered_by_its_bytes_only() -> None:
    machines = [image("ffc0", 3), image("ffc0", 3, rip=USER_CODE + 0x20), image("ffc0", 0), image("ffc0", 3, profile="amd")]

    for made in (*machines, *machines):
        ended = run_image(made)
        assert (ended.register("rax"), ended.register("rip")) == (1, made.registers["rip"] + 4)


def test_the_memory_of_decoded_instructions_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "_DECODED_LIMIT", 2)
    monkeypatch.setattr(fetch, "_PAGES_LIMIT", 1)

    for number in range(8):
        assert run(f"b0{number:02x} b1{number:02x} b2{number:02x}").register("rcx") == number
    assert len(fetch._DECODED[Dialect(amd=False, bits=64)]) <= 2
    assert len(fetch._PAGES[Dialect(amd=False, bits=64)]) <= 1
