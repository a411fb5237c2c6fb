"""PUSH, POP, PUSHF, POPF, ENTER and LEAVE in 64-bit mode (SDM Vol. 2A and 2B)."""

from __future__ import annotations

import pytest
from reference_machine import (
    KERNEL_DATA,
    KERNEL_RSP,
    KERNEL_STACK,
    NOT_CANONICAL,
    PRESENT,
    UNMAPPED,
    USER_DS,
    gate,
    handler,
    outcome,
    peek,
    q,
    run,
)

from reference.image import Observation

VALUE = 0x8877_6655_4433_2211
ONES = 0xFFFF_FFFF_FFFF_FFFF
PF_STACK = {14: gate(handler(14), ist=1)}
RF, AC, ID, VIF, VIP, NT, IF, TF, DF, IOPL = 1 << 16, 1 << 18, 1 << 21, 1 << 19, 1 << 20, 1 << 14, 1 << 9, 1 << 8, 1 << 10, 3 << 12
ARITHMETIC = 0x8D5


@pytest.mark.parametrize(
    ("code", "size", "pushed"),
    [
        pytest.param("50", 8, VALUE, id="register"),
        pytest.param("6650", 2, 0x2211, id="register-16-bit"),
        pytest.param("54", 8, KERNEL_RSP, id="rsp-as-it-was"),
        pytest.param("6aff", 8, ONES, id="sign-extended-byte"),
        pytest.param("68000000ff", 8, 0xFFFF_FFFF_FF00_0000, id="sign-extended-doubleword"),
        pytest.param("66683412", 2, 0x1234, id="word"),
        pytest.param("666aff", 2, 0xFFFF, id="sign-extended-byte-16-bit"),
        pytest.param("0fa0", 8, USER_DS, id="fs-zero-extended"),
        pytest.param("660fa0", 2, USER_DS, id="fs-16-bit"),
        pytest.param("ff3424", 8, 0x55, id="memory-at-rsp-as-it-was"),
        pytest.param("9c", 8, 0x246, id="rflags"),
        pytest.param("669c", 2, 0x246, id="flags"),
    ],
)
def test_push(code: str, size: int, pushed: int) -> None:
    memory = {KERNEL_RSP - 8: b"\xee" * 8, KERNEL_RSP: q(0x55)}

    ended = run(code, rax=VALUE, fs=USER_DS, rflags=0x246, memory=memory)

    assert ended.register("rsp") == KERNEL_RSP - size
    assert peek(ended, KERNEL_RSP - 8) == pushed << 64 - 8 * size | (0xEEEE_EEEE_EEEE_EEEE >> 8 * size if size < 8 else 0)


@pytest.mark.parametrize("code", ["50", "9c", "ff30", "0fa0", "c8000000", "e800000000"])
def test_a_push_that_faults_changes_nothing(code: str) -> None:
    ended = run(code, rax=KERNEL_DATA, rsp=UNMAPPED, rbp=7, idt=PF_STACK)

    assert (outcome(ended), ended.register("cr2"), ended.register("rbp")) == ("#PF(0x2)", UNMAPPED - 8, 7)
    assert ended.deliveries[0].rip == 0xFFFF_FFFF_8100_0000


@pytest.mark.parametrize(
    ("code", "size", "rax"),
    [pytest.param("58", 8, VALUE, id="64-bit"), pytest.param("6658", 2, 0xFFFF_FFFF_FFFF_2211, id="16-bit")],
)
def test_pop(code: str, size: int, rax: int) -> None:
    ended = run(code, rax=ONES, memory={KERNEL_RSP: q(VALUE)})

    assert [ended.register("rax"), ended.register("rsp")] == [rax, KERNEL_RSP + size]


def test_pop_rsp_keeps_the_value() -> None:
    assert run("5c", memory={KERNEL_RSP: q(KERNEL_DATA)}).register("rsp") == KERNEL_DATA


def test_pop_to_memory_uses_rsp_after_it_moved() -> None:
    ended = run("8f0424", memory={KERNEL_RSP: q(VALUE, 1)})

    assert (peek(ended, KERNEL_RSP + 8), ended.register("rsp")) == (VALUE, KERNEL_RSP + 8)


@pytest.mark.parametrize(("code", "size"), [("0fa9", 8), ("660fa9", 2)])
def test_pop_loads_a_segment_register(code: str, size: int) -> None:
    ended = run(code, memory={KERNEL_RSP: q(0xFFFF_0000 | USER_DS)})

    assert [ended.register("gs"), ended.register("rsp")] == [USER_DS, KERNEL_RSP + size]


@pytest.mark.parametrize(
    ("code", "expected"), [pytest.param("0fa9", "#GP(0x100)", id="segment"), pytest.param("8f00", "#GP(0x0)", id="memory")]
)
def test_a_pop_that_faults_leaves_rsp(code: str, expected: str) -> None:
    ended = run(code, rax=NOT_CANONICAL, memory={KERNEL_RSP: q(0x100)})

    assert (outcome(ended), ended.register("rsp")) == (expected, KERNEL_RSP - 48)


def test_pushf_leaves_out_rf_and_vm() -> None:
    assert peek(run("9c", rflags=2 | RF | ID | VIF | VIP | AC), KERNEL_RSP - 8) == 2 | ID | VIF | VIP | AC


def popf(code: str, cpl: int, before: int, popped: int) -> Observation:
    stack = KERNEL_RSP if cpl < 3 else 0x42_1000
    return run(code, cpl, rflags=before, memory={stack: q(popped)})


WIDE = ARITHMETIC | DF | NT | AC | ID
NARROW = ARITHMETIC | DF | NT


@pytest.mark.parametrize(
    ("code", "cpl", "iopl", "changeable"),
    [
        pytest.param("9d", 0, 0, WIDE | IF | IOPL, id="cpl-0"),
        pytest.param("9d", 3, 0, WIDE, id="cpl-3-iopl-0"),
        pytest.param("9d", 3, 0x2000, WIDE, id="cpl-3-iopl-2"),
        pytest.param("9d", 3, 0x3000, WIDE | IF, id="cpl-3-iopl-3"),
        pytest.param("669d", 0, 0, NARROW | IF | IOPL, id="16-bit-cpl-0"),
        pytest.param("669d", 3, 0, NARROW, id="16-bit-cpl-3"),
        pytest.param("669d", 3, 0x3000, NARROW | IF, id="16-bit-cpl-3-iopl-3"),
    ],
)
def test_popf_changes_what_cpl_and_iopl_allow(code: str, cpl: int, iopl: int, changeable: int) -> None:
    all_but_tf = 0x3F_7FD7 & ~TF

    raised = popf(code, cpl, 2 | iopl, all_but_tf).register("rflags")
    lowered = popf(code, cpl, all_but_tf & ~IOPL & ~NT & ~(1 << 17) | iopl, 2).register("rflags")

    assert raised == 2 | iopl | changeable
    assert lowered == (all_but_tf & ~IOPL & ~NT & ~(1 << 17) | iopl) & ~changeable & ~RF


def test_popf_changes_tf() -> None:
    assert outcome(popf("9d 90", 0, 2, 2 | TF)) == "#DB"


def test_popf_clears_rf_and_ignores_reserved_bits() -> None:
    assert popf("9d", 0, 2 | RF, ONES & ~TF & ~IF).register("rflags") == 2 | (WIDE | IOPL)


@pytest.mark.parametrize(("code", "slot"), [("c81000", 8), ("66c81000", 2)])
@pytest.mark.parametrize("level", [0, 1, 2, 3, 31])
@pytest.mark.parametrize("extra", [0, 32])
def test_enter(code: str, slot: int, level: int, extra: int) -> None:
    frames = KERNEL_STACK + 0x400
    copied = [0x1100 + n for n in range(1, 32)]
    memory = {frames - slot * (n + 1): value.to_bytes(slot, "little") for n, value in enumerate(copied)}

    ended = run(f"{code}{level + extra & 0xFF:02x}", rbp=frames, memory=memory)

    mask = (1 << 8 * slot) - 1
    first = KERNEL_RSP - slot
    expected = [frames & mask, *copied[: max(level - 1, 0)], *([first & mask] if level else [])]
    assert [peek(ended, first - slot * n, slot) for n in range(len(expected))] == expected
    assert ended.register("rbp") == first
    assert ended.register("rsp") == KERNEL_RSP - slot * len(expected) - 16


def test_enter_may_copy_a_pointer_that_it_has_just_pushed() -> None:
    ended = run("c8000002", rbp=KERNEL_RSP)

    assert [peek(ended, KERNEL_RSP - 8 * n) for n in (1, 2, 3)] == [KERNEL_RSP, KERNEL_RSP, KERNEL_RSP - 8]


@pytest.mark.parametrize(
    ("code", "parts", "error", "cr2"),
    [
        pytest.param("c8001000", {}, 0x2, KERNEL_STACK - 8, id="final-rsp-in-a-missing-page"),
        pytest.param("c8000002", {"rbp": UNMAPPED, "rsp": UNMAPPED}, 0x2, UNMAPPED - 8, id="the-first-push-comes-first"),
    ],
)
def test_enter_faults_before_it_changes_registers(code: str, parts: dict[str, int], error: int, cr2: int) -> None:
    parts = {"rbp": KERNEL_DATA, "rsp": KERNEL_STACK + 0x1000, **parts}

    ended = run(code, idt=PF_STACK, **parts)

    assert (outcome(ended), ended.register("cr2"), ended.register("rbp")) == (f"#PF({error:#x})", cr2, parts["rbp"])


@pytest.mark.parametrize(
    ("code", "parts"),
    [
        pytest.param("c8000002", {"rbp": UNMAPPED}, id="a-copy-faults-after-a-push"),
        pytest.param("c8000001", {"rsp": KERNEL_STACK + 8}, id="a-push-faults-after-a-push"),
        pytest.param("66c8000000", {"rbp": KERNEL_DATA}, id="16-bit-operand-and-rbp-far-from-rsp"),
    ],
)
def test_what_the_manual_leaves_open_about_enter_is_not_modelled(code: str, parts: dict[str, int]) -> None:
    assert outcome(run(code, **{"rbp": KERNEL_STACK, **parts})).startswith("not modelled: ")


def test_whether_the_final_rsp_of_enter_is_tried_is_open_on_amd() -> None:
    parts = {"rbp": 1, "rsp": KERNEL_STACK + 0x1010, "paging": {(1, KERNEL_STACK): (0, PRESENT)}, "idt": PF_STACK}

    assert outcome(run("c8000400", profile="amd", **parts)) == "not modelled: enter beyond the stack"
    assert outcome(run("c8000400", profile="intel", **parts)) == "#PF(0x2)"
    assert outcome(run("c8000000", profile="amd", **parts)) == "ended"


@pytest.mark.parametrize(
    ("code", "rsp", "rbp"),
    [
        pytest.param("c9", KERNEL_DATA + 8, VALUE, id="64-bit"),
        pytest.param("66c9", KERNEL_DATA + 2, KERNEL_DATA & ~0xFFFF | 0x2211, id="16-bit"),
    ],
)
def test_leave(code: str, rsp: int, rbp: int) -> None:
    ended = run(code, rbp=KERNEL_DATA, memory={KERNEL_DATA: q(VALUE)})

    assert [ended.register("rsp"), ended.register("rbp")] == [rsp, rbp]


def test_leave_that_faults_changes_nothing() -> None:
    ended = run("c9", rbp=UNMAPPED)

    assert (outcome(ended), ended.register("rbp"), ended.register("rsp")) == ("#PF(0x0)", UNMAPPED, KERNEL_RSP - 48)


def test_the_final_rsp_of_enter_may_be_misaligned() -> None:
    ended = run("c8010000", 3, rsp=0x42_1F00, rflags=1 << 18, cr0=0x8005_0033)

    assert (outcome(ended), ended.register("rsp")) == ("ended", 0x42_1EF7)


@pytest.mark.parametrize(
    ("code", "cpl", "parts", "expected"),
    [
        pytest.param("c8010000", 3, {}, "not modelled: enter to a misaligned stack with alignment checks", id="misaligned"),
        pytest.param("c8080000", 3, {}, "ended", id="aligned"),
        pytest.param("c8010000", 3, {"rflags": 2}, "ended", id="without-ac"),
        pytest.param("c8010000", 3, {"cr0": 0x8001_0033}, "ended", id="without-am"),
        pytest.param("c8010000", 0, {"rsp": KERNEL_STACK + 0x1000}, "ended", id="cpl-0"),
    ],
)
def test_whether_the_final_rsp_of_enter_must_be_aligned_is_open_on_amd(code: str, cpl: int, parts: dict[str, int], expected: str) -> None:
    given = {"rsp": 0x42_1F00, "rflags": 1 << 18, "cr0": 0x8005_0033, **parts}

    assert outcome(run(code, cpl, profile="amd", **given)) == expected
