"""Far RET, far JMP and far CALL in 64-bit mode (SDM Vol. 2B, RET; Vol. 2A, JMP and CALL)."""

from __future__ import annotations

import pytest
from reference_machine import (
    CODE,
    CONFORMING,
    DATA,
    FRAMES,
    KERNEL32_CS,
    KERNEL_CODE,
    KERNEL_CS,
    KERNEL_DATA,
    KERNEL_DS,
    KERNEL_RSP,
    NOT_CANONICAL,
    SPARE,
    TSS_SELECTOR,
    UNMAPPED,
    USER32_CS,
    USER_CODE,
    USER_CS,
    USER_DS,
    USER_RSP,
    descriptor,
    frame,
    gate,
    handler,
    outcome,
    peek,
    q,
    run,
)

from reference.image import Observation

TARGET, USER_TARGET = KERNEL_CODE + 0x40, USER_CODE + 0x40
END = {TARGET: b"\xcd\xf1", USER_TARGET: b"\xcd\xf1"}


def retf(*words: int, size: int = 8, release: int | None = None, cpl: int = 0, **parts: object) -> Observation:
    """Run a far return on the words given."""
    opcode = "cb" if release is None else "ca" + release.to_bytes(2, "little").hex()
    stack = KERNEL_RSP if cpl < 3 else USER_RSP - 0x200
    data = b"".join(word.to_bytes(size, "little") for word in words)
    return run({8: "48", 4: "", 2: "66"}[size] + opcode, cpl, rsp=stack, memory={stack: data, **END}, **parts)


def seen(ended: Observation) -> list[int]:
    return [ended.register(name) for name in ("cs", "rsp", "ss")]


@pytest.mark.parametrize(("release", "extra"), [(None, 0), (0, 0), (0x18, 0x18)])
def test_a_far_return_to_the_same_level(release: int | None, extra: int) -> None:
    ended = retf(TARGET, KERNEL_CS, release=release)

    assert (outcome(ended), seen(ended)) == ("ended", [KERNEL_CS, KERNEL_RSP + 16 + extra, KERNEL_DS])


@pytest.mark.parametrize(("size", "rip"), [(4, USER_TARGET), (2, 0x1234)])
def test_a_narrow_far_return_pops_narrow_words(size: int, rip: int) -> None:
    rsp = USER_RSP - 0x200
    ended = retf(rip, USER_CS, size=size, cpl=3, limit=1)

    assert [ended.register("rip"), ended.register("rsp")] == [rip, rsp + 2 * size]


def test_a_far_return_to_an_outer_level_pops_rsp_and_ss() -> None:
    ended = retf(USER_TARGET, USER_CS, USER_RSP, USER_DS)

    assert (outcome(ended), seen(ended)) == ("ended", [USER_CS, USER_RSP, USER_DS])


def test_imm16_is_released_from_both_stacks() -> None:
    ended = retf(USER_TARGET, USER_CS, 0, 0, USER_RSP - 64, USER_DS, release=16)

    assert (outcome(ended), seen(ended)) == ("ended", [USER_CS, USER_RSP - 48, USER_DS])


def test_a_far_return_changes_no_flag() -> None:
    assert retf(USER_TARGET, USER_CS, USER_RSP, USER_DS, rflags=0x2_08D7 & ~0x2_0000).register("rflags") == 0x8D7


@pytest.mark.parametrize(
    ("rip", "cs", "gdt", "expected"),
    [
        pytest.param(TARGET, 0, {}, "#GP(0x0)", id="null"),
        pytest.param(TARGET, 0x100, {}, "#GP(0x100)", id="past-the-limit"),
        pytest.param(TARGET, KERNEL_DS, {}, "#GP(0x18)", id="data"),
        pytest.param(TARGET, SPARE, {SPARE: descriptor(CODE, long=True, big=True)}, "#GP(0x60)", id="l-and-d"),
        pytest.param(TARGET, KERNEL_CS | 3, {}, "#GP(0x10)", id="nonconforming-dpl-is-not-rpl"),
        pytest.param(TARGET, SPARE | 1, {SPARE: descriptor(CONFORMING, 2, long=True)}, "#GP(0x60)", id="conforming-dpl-above-rpl"),
        pytest.param(TARGET, SPARE, {SPARE: descriptor(CODE, long=True, present=False)}, "#NP(0x60)", id="not-present"),
        pytest.param(NOT_CANONICAL, KERNEL_CS, {}, "#GP(0x0)", id="rip-not-canonical"),
        pytest.param(USER_TARGET, KERNEL32_CS, {}, "not modelled: compatibility mode below CPL 3", id="compatibility-mode"),
    ],
)
def test_checks_of_a_far_return(rip: int, cs: int, gdt: dict[int, int], expected: str) -> None:
    ended = retf(rip, cs, gdt=gdt)

    assert outcome(ended) == expected
    assert [delivery.rip for delivery in ended.deliveries] in ([], [KERNEL_CODE])


def test_a_far_return_inwards_faults() -> None:
    assert outcome(retf(TARGET, KERNEL_CS, cpl=3)) == "#GP(0x10)"


@pytest.mark.parametrize(
    ("rip", "cs", "ss", "gdt", "expected"),
    [
        pytest.param(USER_TARGET, USER_CS, 0, {}, "#GP(0x0)", id="null-ss"),
        pytest.param(USER_TARGET, USER_CS, 3, {}, "#GP(0x0)", id="null-ss-with-rpl-3"),
        pytest.param(USER_TARGET, USER32_CS, 3, {}, "#GP(0x0)", id="null-ss-and-compatibility-mode"),
        pytest.param(USER_TARGET, USER_CS, KERNEL_DS, {}, "#GP(0x18)", id="rpl-of-ss-is-not-that-of-cs"),
        pytest.param(USER_TARGET, USER_CS, USER_CS, {}, "#GP(0x30)", id="ss-names-code"),
        pytest.param(USER_TARGET, USER_CS, SPARE | 3, {SPARE: descriptor(DATA, 3, present=False)}, "#SS(0x60)", id="ss-not-present"),
        pytest.param(NOT_CANONICAL, USER_CS, USER_CS, {}, "#GP(0x30)", id="ss-before-rip"),
        pytest.param(NOT_CANONICAL, USER_CS, USER_DS, {}, "#GP(0x0)", id="rip-not-canonical"),
    ],
)
def test_checks_of_a_far_return_to_an_outer_level(rip: int, cs: int, ss: int, gdt: dict[int, int], expected: str) -> None:
    ended = retf(rip, cs, USER_RSP, ss, gdt=gdt)

    assert (outcome(ended), seen(ended)) == (expected, [KERNEL_CS, KERNEL_RSP - 48, KERNEL_DS])


def test_a_far_return_to_an_outer_level_empties_segments_that_it_may_not_use() -> None:
    ended = retf(USER_TARGET, USER_CS, USER_RSP, USER_DS, ds=KERNEL_DS, es=USER_DS)

    assert [ended.register(name) for name in ("ds", "es", "fs")] == [0, USER_DS, 0]


def test_a_null_selector_with_an_rpl_after_a_far_return_is_open() -> None:
    assert outcome(retf(USER_TARGET, USER_CS, USER_RSP, USER_DS, ds=3)).startswith("not modelled: null selector")


JMP, CALL = "ff28", "ff18"


def far(code: str, rip: int, selector: int, *, size: int = 8, prefix: str | None = None, **parts: object) -> Observation:
    """A far branch through RAX."""
    operand = rip.to_bytes(size, "little") + selector.to_bytes(2, "little")
    prefix = {8: "48", 4: "", 2: "66"}[size] if prefix is None else prefix
    return run(prefix + code, **{"rax": KERNEL_DATA, **parts, "memory": {KERNEL_DATA: operand, **END}})


@pytest.mark.parametrize("code", [JMP, CALL])
@pytest.mark.parametrize("selector", [KERNEL_CS, KERNEL_CS | 0])
def test_a_far_branch_through_memory(code: str, selector: int) -> None:
    ended = far(code, TARGET, selector)

    assert (outcome(ended), ended.register("cs"), ended.register("rip")) == ("ended", KERNEL_CS, TARGET + 2)


def test_a_far_call_pushes_cs_and_the_next_rip() -> None:
    ended = far(CALL, TARGET, KERNEL_CS)

    assert ended.register("rsp") == KERNEL_RSP - 16
    assert [peek(ended, KERNEL_RSP - 8), peek(ended, KERNEL_RSP - 16)] == [KERNEL_CS, KERNEL_CODE + 3]


def test_a_32_bit_far_call_pushes_doublewords() -> None:
    ended = run("ff18", 3, rax=USER_RSP - 0x100, memory={USER_RSP - 0x100: USER_TARGET.to_bytes(4, "little") + b"\x33\0", **END})

    assert (outcome(ended), ended.register("rsp")) == ("ended", USER_RSP - 8)
    assert [peek(ended, USER_RSP - 4, 4), peek(ended, USER_RSP - 8, 4)] == [USER_CS, USER_CODE + 2]


def test_a_16_bit_far_call_pushes_words() -> None:
    ended = far(CALL, 0x1234, KERNEL_CS, size=2, limit=1)

    assert [ended.register("rip"), ended.register("rsp")] == [0x1234, KERNEL_RSP - 4]
    assert [peek(ended, KERNEL_RSP - 2, 2), peek(ended, KERNEL_RSP - 4, 2)] == [KERNEL_CS, KERNEL_CODE + 3 & 0xFFFF]


@pytest.mark.parametrize(
    ("prefix", "profile", "size"),
    [("48", "amd", 8), ("", "amd", 4), ("48", "intel", 8), ("", "intel", 4)],
)
def test_rex_w_widens_what_amds_far_call_pushes_though_not_its_operand(prefix: str, profile: str, size: int) -> None:
    offset = 8 if (profile, prefix) == ("intel", "48") else 4
    pointer = USER_TARGET.to_bytes(offset, "little") + b"\x33\0"

    ended = run(prefix + "ff18", 3, profile=profile, rax=USER_RSP - 0x100, memory={USER_RSP - 0x100: pointer, **END})

    assert (outcome(ended), ended.register("rsp")) == ("ended", USER_RSP - 2 * size)
    assert peek(ended, USER_RSP - size, size) == USER_CS


@pytest.mark.parametrize(("profile", "pushed"), [("amd", True), ("intel", False)])
def test_amds_far_call_has_pushed_when_the_target_is_past_the_limit(profile: str, pushed: bool) -> None:
    pointer = (0x1001).to_bytes(4, "little") + (SPARE | 3).to_bytes(2, "little")
    small = {SPARE: descriptor(CODE, 3, big=True, limit=0x1000, granular=False)}

    ended = run("ff18", 3, profile=profile, rax=USER_RSP - 0x100, memory={USER_RSP - 0x100: pointer}, gdt=small)

    assert (outcome(ended), frame(ended, error_code=True).rsp) == ("#GP(0x0)", USER_RSP)
    assert (FRAMES[USER_RSP - 4 >> 12] in ended.memory) == pushed
    assert not pushed or peek(ended, USER_RSP - 4, 4) == USER_CS


@pytest.mark.parametrize("code", [JMP, CALL])
@pytest.mark.parametrize(
    ("rip", "selector", "gdt", "expected"),
    [
        pytest.param(TARGET, 0, {}, "#GP(0x0)", id="null"),
        pytest.param(TARGET, 0x100, {}, "#GP(0x100)", id="past-the-limit"),
        pytest.param(TARGET, KERNEL_DS, {}, "#GP(0x18)", id="data"),
        pytest.param(TARGET, TSS_SELECTOR, {}, "#GP(0x40)", id="tss"),
        pytest.param(TARGET, SPARE, {SPARE: descriptor(CODE, long=True, big=True)}, "#GP(0x60)", id="l-and-d"),
        pytest.param(TARGET, USER_CS, {}, "#GP(0x30)", id="nonconforming-dpl-above-the-cpl"),
        pytest.param(TARGET, KERNEL_CS | 3, {}, "#GP(0x10)", id="rpl-above-the-cpl"),
        pytest.param(TARGET, SPARE, {SPARE: descriptor(CONFORMING, 3, long=True)}, "#GP(0x60)", id="conforming-dpl-above-the-cpl"),
        pytest.param(TARGET, SPARE | 3, {SPARE: descriptor(CONFORMING, long=True)}, "ended", id="conforming-ignores-rpl"),
        pytest.param(TARGET, SPARE, {SPARE: descriptor(CODE, long=True, present=False)}, "#NP(0x60)", id="not-present"),
        pytest.param(NOT_CANONICAL, KERNEL_CS, {}, "#GP(0x0)", id="rip-not-canonical"),
        pytest.param(TARGET, SPARE, {SPARE: descriptor(0xC, segment=False)}, "not modelled: call gate", id="call-gate"),
        pytest.param(USER_TARGET, KERNEL32_CS, {}, "not modelled: compatibility mode below CPL 3", id="compatibility-mode"),
    ],
)
def test_checks_of_a_far_branch(code: str, rip: int, selector: int, gdt: dict[int, int], expected: str) -> None:
    ended = far(code, rip, selector, gdt=gdt)

    assert outcome(ended) == expected
    assert ended.register("cs") & 3 == 0
    if expected.startswith("#"):
        assert [ended.register("cs"), ended.register("rsp"), ended.deliveries[0].rip] == [KERNEL_CS, KERNEL_RSP - 48, KERNEL_CODE]


def test_conforming_code_runs_at_the_cpl_of_its_caller() -> None:
    ended = run("ff28", 3, rax=USER_RSP, memory={USER_RSP: USER_TARGET.to_bytes(4, "little") + b"\x60\0", **END},
                gdt={SPARE: descriptor(CONFORMING, long=True)})  # fmt: skip

    assert ended.register("cs") == SPARE | 3


def test_the_stack_of_a_far_call_is_checked_before_its_target_address() -> None:
    stacks = {vector: gate(handler(vector), ist=1) for vector in (12, 13, 14)}

    assert outcome(far(CALL, NOT_CANONICAL, KERNEL_CS, rsp=UNMAPPED, idt=stacks)) == "#PF(0x2)"
    assert outcome(far(CALL, TARGET, KERNEL_CS, rsp=NOT_CANONICAL + 8, idt=stacks)) == "#SS(0x0)"
    assert outcome(far(CALL, TARGET, 0x100, rsp=UNMAPPED, idt=stacks)) == "#GP(0x100)"


def test_rex_w_does_not_widen_a_far_branch_on_amd() -> None:
    memory = {USER_RSP: USER_TARGET.to_bytes(4, "little") + q(USER_CS), **END}

    assert outcome(run("48ff28", 3, profile="amd", rax=USER_RSP, memory=memory)) == "ended"
    assert outcome(run("48ff28", 3, profile="intel", rax=USER_RSP, memory=memory)) == "#GP(0x0)"


@pytest.mark.parametrize("code", [JMP, CALL])
def test_a_far_pointer_is_read_through_rsp_as_a_stack_access(code: str) -> None:
    assert outcome(run(code[:2] + ("2c24" if code == JMP else "1c24"), rsp=NOT_CANONICAL, idt={12: gate(handler(12), ist=1)})) == "#SS(0x0)"


def test_a_far_return_reads_its_words_from_the_stack() -> None:
    assert outcome(run("48cb", memory={KERNEL_RSP: q(TARGET, KERNEL_CS), **END})) == "ended"


@pytest.mark.parametrize("cpl", [0, 3])
@pytest.mark.parametrize(
    "rsp",
    [
        pytest.param(0xFFFF_7FFF_FFFF_FFFF, id="the-first-word-ends-behind-the-hole"),
        pytest.param(0xFFFF_7FFF_FFFF_FFFE, id="the-second-word-is-behind-the-hole"),
    ],
)
def test_a_far_return_from_a_stack_that_is_not_canonical_reads_nothing_behind_it(rsp: int, cpl: int) -> None:
    """SDM Vol. 2B, RET, IA-32e mode: #SS(0) if the first or second word is not in canonical space, before the words are read."""
    ended = run("66cb", cpl, rsp=rsp, idt={12: gate(handler(12), ist=1)})

    assert (outcome(ended), ended.register("cr2")) == ("#SS(0x0)", 0)
