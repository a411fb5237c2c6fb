"""The stack and branches in compatibility mode, and the instructions that 64-bit mode does not have."""

from __future__ import annotations

import pytest
from reference_compatibility import SPARE_SELECTOR, run32, run_in_segment, with_segment
from reference_machine import (
    CODE,
    DATA,
    GDT_LIMIT,
    PRESENT,
    SPARE,
    USER32_CS,
    USER_CODE,
    USER_CS,
    USER_DATA,
    USER_DS,
    USER_READONLY,
    USER_RSP,
    descriptor,
    frame,
    gate,
    handler,
    outcome,
    peek,
)

from reference.image import Observation

AND, AF, OF, TF, IF, DF, NT, AC, RF, VM = "21c0", 1 << 4, 1 << 11, 1 << 8, 1 << 9, 1 << 10, 1 << 14, 1 << 18, 1 << 16, 1 << 17
PUSHF, POPF, INTO = "9c", "9d", "ce"
THERE = USER_CODE + 0x40
END = {THERE: b"\xcd\xf1"}
MISSING = 0x9999_0000
UNDEFINED = "not modelled: reads undefined flags from memory"


def little(value: int, size: int = 4) -> bytes:
    return value.to_bytes(size, "little")


def words(*values: int, size: int = 4) -> bytes:
    return b"".join(little(value, size) for value in values)


def user_gate(vector: int) -> bytes:
    return gate(handler(vector), dpl=3)


def values(ended: Observation, *names: str) -> list[int]:
    return [ended.register(name) for name in names]


@pytest.mark.parametrize(
    ("code", "size", "pushed"),
    [
        pytest.param("50", 4, 0x8765_4321, id="register"),
        pytest.param("6650", 2, 0x4321, id="16-bit-register"),
        pytest.param("54", 4, USER_RSP, id="esp-as-it-was"),
        pytest.param("6aff", 4, 0xFFFF_FFFF, id="imm8"),
        pytest.param("6878563412", 4, 0x1234_5678, id="imm32"),
        pytest.param("666aff", 2, 0xFFFF, id="imm8-with-66"),
        pytest.param("ff33", 4, 0xCAFE_F00D, id="memory"),
        pytest.param("0e", 4, USER32_CS, id="cs"),
        pytest.param("0fa0", 4, 0, id="fs"),
        pytest.param("6616", 2, USER_DS, id="16-bit-ss"),
    ],
)
def test_push_moves_esp_by_its_operand(code: str, size: int, pushed: int) -> None:
    ended = run32(code, rax=0x8765_4321, rbx=USER_DATA, memory={USER_DATA: words(0xCAFE_F00D)})

    assert ended.register("rsp") == USER_RSP - size
    assert not pushed or peek(ended, USER_RSP - size, size) == pushed


def test_a_selector_pushed_over_other_bytes_is_open() -> None:
    assert outcome(run32("0e", memory={USER_RSP - 4: words(0x10000)})) == "not modelled: the upper half of a pushed selector"
    assert outcome(run32("660e", memory={USER_RSP - 4: words(0x10000)})) == "ended"


def test_esp_wraps_at_32_bits() -> None:
    assert outcome(run32("50", rsp=0)) == "#PF(0x6)"
    assert with_segment("ss", DATA, "50", base=USER_DATA + 0x1000, rsp=0).register("rsp") == 0xFFFF_FFFC
    assert with_segment("ss", DATA, "58", base=USER_DATA + 0x1000, rsp=0xFFFF_FFFC).register("rsp") == 0


@pytest.mark.parametrize("code", ["50", "ff33", "9c", "e800000000", "0e"])
def test_a_push_that_faults_changes_nothing(code: str) -> None:
    ended = run32(code, rbx=USER_DATA, rsp=USER_READONLY + 8)

    assert (outcome(ended), frame(ended, error_code=True).rsp) == ("#PF(0x7)", USER_READONLY + 8)


@pytest.mark.parametrize("code", ["50", "58", "9c", "9d", "c9", "c3", "cb", "cf", "e800000000"])
def test_the_stack_outside_the_limit_of_ss_raises_ss(code: str) -> None:
    ended = with_segment("ss", DATA, code, limit=0x100, rsp=USER_RSP, rbp=USER_RSP)

    assert (outcome(ended), frame(ended, error_code=True).rsp) == ("#SS(0x0)", USER_RSP)


@pytest.mark.parametrize(
    ("code", "register", "value", "size"),
    [
        pytest.param("58", "rax", 0xCAFE_F00D, 4, id="register"),
        pytest.param("6658", "rax", 0x1111_F00D, 2, id="16-bit-register"),
        pytest.param("8f4424fc", "rsp", USER_RSP + 4, 4, id="memory-below-the-new-esp"),
    ],
)
def test_pop(code: str, register: str, value: int, size: int) -> None:
    ended = run32(code, rax=0x1111_1111, memory={USER_RSP: words(0xCAFE_F00D)})

    assert (ended.register(register), ended.register("rsp")) == (value, USER_RSP + size)


def test_pop_into_esp_keeps_the_value() -> None:
    assert run32("5c", memory={USER_RSP: words(USER_DATA)}).register("rsp") == USER_DATA


def test_a_pop_whose_destination_faults_changes_nothing() -> None:
    ended = run32("8f03", rbx=MISSING)

    assert (outcome(ended), frame(ended, error_code=True).rsp) == ("#PF(0x6)", USER_RSP)


@pytest.mark.parametrize(("code", "name"), [("07", "es"), ("1f", "ds"), ("0fa1", "fs"), ("0fa9", "gs")])
def test_pop_of_a_segment_register(code: str, name: str) -> None:
    ended = run32(code, memory={USER_RSP: words(0xFFFF_0000 | USER_DS)})
    bad = run32(code, memory={USER_RSP: words(0x100)})

    assert values(ended, name, "rsp") == [USER_DS, USER_RSP + 4]
    assert (outcome(bad), frame(bad, error_code=True).rsp) == ("#GP(0x100)", USER_RSP)


def test_pop_ss_holds_traps_for_one_instruction() -> None:
    ended = run32("17 40 40", rflags=2 | TF, memory={USER_RSP: words(USER_DS)})

    assert (outcome(ended), frame(ended).rip) == ("#DB", USER_CODE + 2)
    assert outcome(run32("17")) == "#GP(0x0)"


def test_pushf_and_popf_in_32_and_16_bits() -> None:
    assert peek(run32(PUSHF, rflags=0x8D7 | DF | RF), USER_RSP - 4, 4) == 0x8D7 | DF
    assert peek(run32("66" + PUSHF, rflags=0x8D7 | AC), USER_RSP - 2, 2) == 0x8D7
    assert run32(POPF, memory={USER_RSP: words(0xFFFF_FFFF & ~TF)}).register("rflags") == 0x24_4CD7
    assert run32("66" + POPF, memory={USER_RSP: words(0xFFFF_FFFF & ~TF)}).register("rflags") == 0x4CD7


def test_popf_changes_if_where_iopl_allows_it() -> None:
    assert run32(POPF, rflags=0x3002, memory={USER_RSP: words(IF)}).register("rflags") == 0x3002 | IF


def places(ended: Observation) -> dict[int, int]:
    return {address & 0xFFF: bits for address, bits in ended.undefined.words.items()}


def test_undefined_flags_are_followed_through_the_stack() -> None:
    assert run32(AND + PUSHF + "01c0" + POPF).undefined.rflags == AF
    image = {(USER_RSP - 8) & 0xFFF: AF << 32}  # the upper half of an aligned word
    assert places(run32(AND + PUSHF)) == image
    assert places(run32(AND + PUSHF + "89442404")) == image  # mov [esp+4], eax
    assert not run32(AND + PUSHF + "890424").undefined.words


def test_a_copied_image_is_as_undefined_as_the_original() -> None:
    ended = run32(AND + PUSHF + "89e6 a5", rdi=USER_DATA)  # mov esi, esp; movsd

    assert places(ended) == {(USER_RSP - 8) & 0xFFF: AF << 32, USER_DATA & 0xFFF: AF}


@pytest.mark.parametrize("code", [pytest.param("ff3424", id="push"), pytest.param("58", id="pop")])
def test_undefined_flags_are_not_pushed_or_popped(code: str) -> None:
    assert outcome(run32(AND + PUSHF + code)) == UNDEFINED


def test_a_push_of_other_memory_leaves_undefined_flags_alone() -> None:
    assert outcome(run32(AND + PUSHF + "ff33", rbx=USER_DATA)) == "ended"


def test_leave() -> None:
    parts = {"rbp": USER_DATA, "memory": {USER_DATA: words(0xCAFE_F00D)}}

    assert values(run32("c9", **parts), "rsp", "rbp") == [USER_DATA + 4, 0xCAFE_F00D]
    assert values(run32("66c9", **parts), "rsp", "rbp") == [USER_DATA + 2, USER_DATA & ~0xFFFF | 0xF00D]


@pytest.mark.parametrize(
    ("code", "registers"),
    [
        pytest.param("eb3e", {}, id="jmp-rel8"),
        pytest.param("e93b000000", {}, id="jmp-rel32"),
        pytest.param("ffe0", {"rax": THERE}, id="jmp-register"),
        pytest.param("ff23", {"rbx": USER_DATA}, id="jmp-memory"),
        pytest.param("743e", {"rflags": 0x42}, id="je-taken"),
        pytest.param("e33e", {}, id="jecxz-taken"),
        pytest.param("67e33d", {"rcx": 0x1_0000}, id="jcxz-taken"),
    ],
)
def test_branches_lead_there(code: str, registers: dict[str, int]) -> None:
    ended = run32(code, **registers, memory={**END, USER_DATA: words(THERE)})

    assert (outcome(ended), ended.register("rip")) == ("ended", THERE + 2)


@pytest.mark.parametrize(("code", "registers"), [("743e", {}), ("e33e", {"rcx": 1 << 16}), ("67e33d", {"rcx": 1})])
def test_branches_that_are_not_taken(code: str, registers: dict[str, int]) -> None:
    assert run32(code, **registers).register("rip") == USER_CODE + len(code) // 2 + 2


def test_a_66_prefix_leaves_16_bits_of_a_target_on_both_vendors() -> None:
    for profile in ("intel", "amd"):
        ended = run32("66eb10", profile=profile)
        assert (outcome(ended), frame(ended, error_code=True).rip) == ("#PF(0x14)", USER_CODE + 0x13 & 0xFFFF)


@pytest.mark.parametrize(
    "code",
    [
        pytest.param("e93b000000", id="jmp"),
        pytest.param("ffe0", id="jmp-register"),
        pytest.param("743e", id="je"),
        pytest.param("e33e", id="jecxz"),
        pytest.param("e83b000000", id="call"),
        pytest.param("ffd0", id="call-register"),
        pytest.param("c3", id="ret"),
        pytest.param("cb", id="retf"),
        pytest.param("cf", id="iret"),
    ],
)
def test_a_target_past_the_limit_of_cs_faults_at_the_branch(code: str) -> None:
    entry = descriptor(CODE, 3, big=True, base=USER_CODE, limit=0x3F, granular=False)
    memory = {USER_CODE: bytes.fromhex(code), USER_RSP: words(0x40, SPARE_SELECTOR, 2)}

    ended = run_in_segment(entry, 0, memory, rax=0x40, rflags=0x42)

    assert outcome(ended) == "#GP(0x0)"
    assert (frame(ended, error_code=True).rip, frame(ended, error_code=True).rsp) == (0, USER_RSP)


@pytest.mark.parametrize(
    ("code", "size", "returns_to"),
    [
        pytest.param("e83b000000", 4, USER_CODE + 5, id="relative"),
        pytest.param("ffd0", 4, USER_CODE + 2, id="register"),
        pytest.param("ff13", 4, USER_CODE + 2, id="memory"),
    ],
)
def test_call_pushes_eip(code: str, size: int, returns_to: int) -> None:
    ended = run32(code, rax=THERE, rbx=USER_DATA, memory={**END, USER_DATA: words(THERE)})

    assert values(ended, "rip", "rsp") == [THERE + 2, USER_RSP - size]
    assert peek(ended, USER_RSP - size, size) == returns_to


@pytest.mark.parametrize(("code", "released"), [("c3", 4), ("c20800", 12), ("66c3", 2)])
def test_ret_pops_eip_and_releases(code: str, released: int) -> None:
    ended = run32(code, memory={**END, USER_RSP: words(THERE)}, limit=1)

    assert values(ended, "rip", "rsp") == [THERE if code != "66c3" else THERE & 0xFFFF, USER_RSP + released]


@pytest.mark.parametrize(
    ("code", "cs", "released"),
    [
        pytest.param("cb", USER32_CS, 8, id="same-mode"),
        pytest.param("cb", USER_CS, 8, id="to-64-bit-mode"),
        pytest.param("ca0800", USER32_CS, 16, id="releases"),
    ],
)
def test_far_return(code: str, cs: int, released: int) -> None:
    ended = run32(code, memory={**END, USER_RSP: words(THERE, cs)})

    assert values(ended, "rip", "cs", "rsp", "ss") == [THERE + 2, cs, USER_RSP + released, USER_DS]


@pytest.mark.parametrize(
    ("cs", "expected"),
    [
        pytest.param(0, "#GP(0x0)", id="null"),
        pytest.param(USER_DS, "#GP(0x28)", id="data"),
        pytest.param(0x10, "#GP(0x10)", id="kernel"),
        pytest.param(SPARE_SELECTOR, "not modelled: 16-bit code segment", id="16-bit"),
    ],
)
@pytest.mark.parametrize("code", ["cb", "cf"])
def test_checks_of_far_returns(code: str, cs: int, expected: str) -> None:
    parts = {"gdt": {SPARE: descriptor(CODE, 3)}, "gdtr_limit": GDT_LIMIT}

    assert outcome(run32(code, memory={USER_RSP: words(THERE, cs, 2)}, **parts)) == expected


@pytest.mark.parametrize("cs", [USER32_CS, USER_CS])
def test_iret_outside_64_bit_mode_pops_three_words(cs: int) -> None:
    ended = run32("cf", memory={**END, USER_RSP: words(THERE, cs, 0xFFFF_FFFF & ~(NT | TF))})

    assert values(ended, "rip", "cs", "rsp", "ss") == [THERE + 2, cs, USER_RSP + 12, USER_DS]
    assert ended.register("rflags") & ~RF == 0x24_0CD7


def test_iret_with_nt_faults_and_16_bit_iret_pops_words() -> None:
    assert outcome(run32("cf", rflags=2 | NT)) == "#GP(0x0)"
    ended = run32("66cf", memory={USER_RSP: words(0x1234, USER32_CS, 2, size=2)}, limit=1)
    assert values(ended, "rip", "rsp") == [0x1234, USER_RSP + 6]


def test_iret_brings_undefined_flags_back() -> None:
    code = AND + PUSHF + "0e 68" + little(THERE).hex() + "cf"

    assert run32(code, memory=END).undefined.rflags == AF


@pytest.mark.parametrize("cs", [USER32_CS, USER_CS])
def test_far_jumps_through_the_instruction_and_memory(cs: int) -> None:
    pointer = words(THERE) + little(cs, 2)

    for code in ("ea" + pointer.hex(), "ff2b"):
        ended = run32(code, rbx=USER_DATA, memory={**END, USER_DATA: pointer})
        assert values(ended, "rip", "cs", "rsp") == [THERE + 2, cs, USER_RSP]
    short = run32("66ea3412" + little(cs, 2).hex(), limit=1)
    assert values(short, "rip", "cs") == [0x1234, cs]


def test_checks_of_a_far_jump() -> None:
    assert outcome(run32("ea" + (words(THERE) + little(0x10, 2)).hex())) == "#GP(0x10)"
    assert outcome(run32("ff2b", rbx=MISSING)) == "#PF(0x4)"


def test_a_way_to_64_bit_mode_and_back() -> None:
    there = "ea" + (words(THERE) + little(USER_CS, 2)).hex()
    back = bytes.fromhex("4889e0 6a23 68") + words(USER_CODE + 7) + bytes.fromhex("48cb")  # mov rax, rsp; push; push; retfq

    ended = run32(there, memory={THERE: back})

    assert values(ended, "rip", "cs", "rsp", "rax") == [USER_CODE + 9, USER32_CS, USER_RSP, USER_RSP]


def test_into_traps_if_of_is_set() -> None:
    assert values(run32(INTO), "rip") == [USER_CODE + 3]
    ended = run32(INTO, rflags=2 | OF, idt={4: user_gate(4)})
    assert (outcome(ended), frame(ended).rip) == ("#OF", USER_CODE + 1)
    assert outcome(run32(INTO, rflags=2 | OF)) == "#GP(0x22)"


def test_into_single_steps_if_it_does_not_trap() -> None:
    assert outcome(run32(INTO, rflags=2 | TF)) == "#DB"
    assert [delivery.vector for delivery in run32(INTO, rflags=2 | TF | OF, idt={4: user_gate(4)}).deliveries] == [4]


def test_into_after_an_undefined_overflow_is_open() -> None:
    assert outcome(run32("b801000000 c1e002" + INTO)) == "not modelled: reads an undefined flag"


@pytest.mark.parametrize(
    ("index", "expected"),
    [(-5, "ended"), (7, "ended"), (0, "ended"), (-6, "#BR"), (8, "#BR"), (0x7FFF, "#BR")],
)
@pytest.mark.parametrize(("code", "size"), [("6203", 4), ("666203", 2)])
def test_bound(code: str, size: int, index: int, expected: str) -> None:
    mask = (1 << 8 * size) - 1
    memory = {USER_DATA: words(-5 & mask, 7, size=size)}

    ended = run32(code, rax=index & mask, rbx=USER_DATA, memory=memory)

    assert outcome(ended) == expected
    assert expected == "ended" or frame(ended).rip == USER_CODE


@pytest.mark.parametrize(
    ("code", "vector"), [pytest.param("cd05", 5, id="int-n"), pytest.param("cc", 3, id="int3"), pytest.param("f1", 1, id="int1")]
)
def test_software_interrupts_return_behind_themselves(code: str, vector: int) -> None:
    ended = run32(code, idt={vector: user_gate(vector)})

    assert ended.deliveries[0].vector == vector
    assert (frame(ended).rip, frame(ended).cs, frame(ended).rsp) == (USER_CODE + len(code) // 2, USER32_CS, USER_RSP)


def test_strings_use_ds_and_es_and_count_in_ecx() -> None:
    parts = {"rsi": USER_DATA, "rdi": USER_DATA + 0x100, "memory": {USER_DATA: bytes(range(1, 9))}}

    ended = run32("f3a4", rcx=8, **parts)
    assert peek(ended, USER_DATA + 0x100) == 0x0807_0605_0403_0201
    assert values(ended, "rcx", "rsi", "rdi") == [0, USER_DATA + 8, USER_DATA + 0x108]
    assert outcome(run32("a5", **{**parts, "es": 0})) == "#GP(0x0)"
    assert outcome(run32("26a5", **{**parts, "ds": 0})) == "ended"
    assert values(run32("ab", rax=7, rflags=2 | DF, **parts), "rdi") == [USER_DATA + 0xFC]


@pytest.mark.parametrize(
    ("code", "name"),
    [
        pytest.param("60", "pushad", id="pushad"),
        pytest.param("27", "daa", id="daa"),
        pytest.param("9a000000001000", "call", id="call-far"),
        pytest.param("c500", "lds", id="lds"),
        pytest.param("0fb200", "lss", id="lss"),
        pytest.param("67a4", "movsb", id="16-bit-string"),
        pytest.param("0fa318", "bt", id="bit-string"),
        pytest.param("c8000000", "enter", id="enter"),
        pytest.param("0f0100", "sgdt", id="sgdt"),
        pytest.param("f2a4", "movsb", id="repne"),
    ],
)
def test_what_has_no_rule_in_compatibility_mode(code: str, name: str) -> None:
    assert outcome(run32(code, rax=USER_DATA)) == f"not modelled: {name}"


def test_bit_tests_of_registers() -> None:
    assert run32("0fbae01f", rax=1 << 31).register("rflags") & 1


def test_endbr32_does_nothing() -> None:
    assert values(run32("f30f1efb"), "rip") == [USER_CODE + 6]


def test_a_missing_stack_page_is_a_page_fault() -> None:
    ended = run32("58", paging={(1, USER_RSP): (0, PRESENT)})

    assert (outcome(ended), ended.register("cr2")) == ("#PF(0x4)", USER_RSP)
