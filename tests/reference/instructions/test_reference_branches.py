"""Near branches in 64-bit mode (SDM Vol. 2A, CALL, Jcc, JMP; Vol. 2B, RET; APM Vol. 3, 1.2.7)."""

from __future__ import annotations

import pytest
from reference_machine import (
    KERNEL_CODE,
    KERNEL_DATA,
    KERNEL_RSP,
    LAST_USER_PAGE,
    NOT_CANONICAL,
    UNMAPPED,
    gate,
    handler,
    outcome,
    peek,
    q,
    run,
)

from reference.image import Observation

ZF = 0x40
TARGET = KERNEL_CODE + 0x40
END = {TARGET: b"\xcd\xf1"}


def landed(ended: Observation) -> int:
    """Where the branch went, relative to itself: the ending interrupt is two bytes long."""
    assert outcome(ended) == "ended"
    return ended.register("rip") - 2 - KERNEL_CODE


@pytest.mark.parametrize(
    ("code", "parts", "expected"),
    [
        pytest.param("eb3e", {}, 0x40, id="jmp-short"),
        pytest.param("e93b000000", {}, 0x40, id="jmp-near"),
        pytest.param("ffe0", {"rax": TARGET}, 0x40, id="jmp-register"),
        pytest.param("ff20", {"rax": KERNEL_DATA}, 0x40, id="jmp-memory"),
        pytest.param("743e", {"rflags": ZF}, 0x40, id="jcc-taken"),
        pytest.param("743e", {}, 2, id="jcc-not-taken"),
        pytest.param("0f843a000000", {"rflags": ZF}, 0x40, id="jcc-near"),
        pytest.param("e33e", {"rcx": 0}, 0x40, id="jrcxz-taken"),
        pytest.param("e33e", {"rcx": 1 << 32}, 2, id="jrcxz-looks-at-all-of-rcx"),
        pytest.param("67e33d", {"rcx": 1 << 32}, 0x40, id="jecxz-looks-at-ecx"),
        pytest.param("67e33d", {"rcx": 1}, 3, id="jecxz-not-taken"),
        pytest.param("e83b000000", {}, 0x40, id="call-near"),
        pytest.param("ffd0", {"rax": TARGET}, 0x40, id="call-register"),
        pytest.param("ff10", {"rax": KERNEL_DATA}, 0x40, id="call-memory"),
        pytest.param("c3", {}, 0x40, id="ret"),
        pytest.param("c21000", {}, 0x40, id="ret-imm16"),
    ],
)
def test_where_a_branch_goes(code: str, parts: dict[str, int], expected: int) -> None:
    ended = run(code, memory={**END, KERNEL_DATA: q(TARGET), KERNEL_RSP: q(TARGET)}, **parts)

    assert landed(ended) == expected


def test_a_branch_backwards() -> None:
    # jmp +1; (int 0xf1 here); jmp -4
    ended = run("eb02 cdf1 ebfc")

    assert landed(ended) == 2


@pytest.mark.parametrize(("code", "length"), [("e83b000000", 5), ("ffd0", 2), ("ff11", 2)])
def test_call_pushes_the_address_behind_it(code: str, length: int) -> None:
    ended = run(code, rax=TARGET, rcx=KERNEL_DATA, memory={**END, KERNEL_DATA: q(TARGET)})

    assert (ended.register("rsp"), peek(ended, KERNEL_RSP - 8)) == (KERNEL_RSP - 8, KERNEL_CODE + length)


def test_call_through_rsp_reads_its_target_before_it_pushes() -> None:
    assert landed(run("ff1424", memory={**END, KERNEL_RSP: q(TARGET)})) == 0x40


@pytest.mark.parametrize(("code", "released"), [("c3", 8), ("c21000", 24), ("c2ffff", 8 + 0xFFFF)])
def test_ret_releases_the_return_address_and_imm16_bytes(code: str, released: int) -> None:
    assert run(code, memory={**END, KERNEL_RSP: q(TARGET)}).register("rsp") == KERNEL_RSP + released


@pytest.mark.parametrize(
    ("code", "parts"),
    [
        pytest.param("ffe0", {"rax": NOT_CANONICAL}, id="jmp"),
        pytest.param("ffd0", {"rax": NOT_CANONICAL}, id="call"),
        pytest.param("c3", {"memory": {KERNEL_RSP: q(NOT_CANONICAL)}}, id="ret"),
    ],
)
def test_a_target_that_is_not_canonical_faults_at_the_branch(code: str, parts: dict[str, object]) -> None:
    ended = run(code, **parts)

    assert (outcome(ended), ended.deliveries[0].rip, ended.register("rsp")) == ("#GP(0x0)", KERNEL_CODE, KERNEL_RSP - 48)


@pytest.mark.parametrize(
    ("code", "taken"),
    [
        pytest.param("eb7f", True, id="jmp"),
        pytest.param("e87f000000", True, id="call"),
        pytest.param("747f", False, id="jcc-not-taken"),
        pytest.param("757f", True, id="jcc-taken"),
        pytest.param("e37f", True, id="jrcxz"),
    ],
)
def test_a_relative_target_past_the_low_half_faults_only_if_it_is_taken(code: str, taken: bool) -> None:
    rip = LAST_USER_PAGE + 0xFF0

    ended = run(code, 3, rip=rip)

    assert outcome(ended) == ("#GP(0x0)" if taken else "ended")
    if taken:
        assert ended.deliveries[0].rip == rip


def test_the_target_is_checked_before_the_push() -> None:
    parts = {"rax": NOT_CANONICAL, "rsp": UNMAPPED, "idt": {vector: gate(handler(vector), ist=1) for vector in (13, 14)}}

    assert outcome(run("ffd0", **parts)) == "#GP(0x0)"
    assert outcome(run("ffd0", **{**parts, "rax": TARGET})) == "#PF(0x2)"


@pytest.mark.parametrize(
    ("code", "length"), [pytest.param("66eb02", 3, id="jmp"), pytest.param("667402", 3, id="jcc"), pytest.param("66e302", 3, id="jrcxz")]
)
def test_a_66_prefix_cuts_amds_target_to_16_bits(code: str, length: int) -> None:
    whole = KERNEL_CODE + 0x1000 + length + 2

    for profile, target in (("intel", whole), ("amd", whole & 0xFFFF)):
        assert run(code, profile=profile, rip=KERNEL_CODE + 0x1000, rflags=ZF, limit=1).register("rip") == target


def test_a_66_prefixed_call_pushes_16_bits_on_amd() -> None:
    ended = run("66e80200", profile="amd", limit=1)

    assert (ended.register("rip"), ended.register("rsp"), peek(ended, KERNEL_RSP - 2, 2)) == (6, KERNEL_RSP - 2, 4)


def test_a_66_prefixed_ret_pops_16_bits_on_amd() -> None:
    ended = run("66c3", profile="amd", limit=1, memory={KERNEL_RSP: q(0x1234_5678)})

    assert (ended.register("rip"), ended.register("rsp")) == (0x5678, KERNEL_RSP + 2)


def test_branches_change_no_flag() -> None:
    assert run("eb00", rflags=0x8D7).register("rflags") == 0x8D7
