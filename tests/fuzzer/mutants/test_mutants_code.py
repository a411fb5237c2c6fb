"""Edits of assembled code: each finds its one instruction, and what it puts there is the instruction that it names."""

from __future__ import annotations

from dataclasses import replace

import pytest
from iced_x86 import Decoder, Instruction

from fuzzer.build import patched
from fuzzer.mutants.catalogue import MUTANTS
from fuzzer.mutants.code import DROPPED, SIGN, TAKEN, Bytes, Edit, EditError, Into, Place, Replacement, named
from fuzzer.mutants.mutant import Mutant
from fuzzer.mutants.tables import Gate, NotPatched, Register, Tss, TssStack
from fuzzer.targets import layout
from fuzzer.targets.registry import TARGETS
from fuzzer.targets.tables import FRAMES
from fuzzer.targets.target import Target

LINUX4 = TARGETS["linux4"]


def toy(code: str, **symbols: int) -> Target:
    """A target whose text is `code` (hex) at `start`."""
    page = bytes.fromhex(code).ljust(layout.PAGE, b"\xcc")
    frame = FRAMES[layout.KERNEL_TEXT.name]
    pages = {frame: page, **{frame + n: bytes(layout.PAGE) for n in range(1, layout.KERNEL_TEXT.pages)}}
    start = layout.KERNEL_TEXT.start
    return replace(LINUX4, pages=pages, symbols={"start": start, **{name: start + at for name, at in symbols.items()}}, alternatives={})


def after(target: Target, place: Place, put: Replacement) -> list[str]:
    """The instructions that stand where the edited one stood."""
    old = place.find(target)
    (piece,) = Edit(place, put).apply(target).edits
    assert len(piece.data) == old.len
    decoded: list[Instruction] = list(Decoder(64, piece.data, ip=old.ip))
    return [named(target, one) for one in decoded]


@pytest.mark.parametrize(
    ("code", "text", "put", "expected"),
    [
        pytest.param("0f01f8", "swapgs", DROPPED, ["nop"] * 3, id="dropped"),
        pytest.param("7405 9090909090 c3", "je", TAKEN, ["jmp start+0x7"], id="short-branch-taken"),
        pytest.param("0f8400010000", "je", TAKEN, ["jmp other+0xc6", "nop"], id="near-branch-taken"),
        pytest.param("0f8410000000", "je", TAKEN, ["jmp start+0x16", "nop", "nop", "nop", "nop"], id="near-branch-to-a-near-place-taken"),
        pytest.param("7505 9090909090 c3", "jne", SIGN, ["js start+0x7"], id="short-branch-on-sign"),
        pytest.param("0f8500010000", "jne", SIGN, ["js other+0xc6"], id="near-branch-on-sign"),
        pytest.param("e800010000", "call", Into("other"), ["call other"], id="call-elsewhere"),
        pytest.param("e900010000", "jmp", Into("other"), ["jmp other", "nop", "nop", "nop"], id="jump-elsewhere"),
        pytest.param("4883ec08", "sub rsp", Bytes("51", "push rcx"), ["push rcx", "nop", "nop", "nop"], id="other-bytes"),
    ],
)
def test_what_stands_in_an_instructions_place(code: str, text: str, put: Replacement, expected: list[str]) -> None:
    assert after(toy(code, other=0x40), Place("start", text), put) == expected


def test_the_second_of_two_equal_instructions_is_found() -> None:
    target = toy("0f01f8 90 0f01f8 c3")

    assert Place("start", "swapgs", nth=1).find(target).ip == layout.KERNEL_TEXT.start + 4


def test_a_place_ends_at_the_next_label() -> None:
    with pytest.raises(EditError, match="start has no instruction 'swapgs' number 0"):
        Place("start", "swapgs").find(toy("90 0f01f8", other=1))


def test_a_word_of_a_text_is_not_half_a_word() -> None:
    with pytest.raises(EditError, match="no instruction 'j'"):
        Place("start", "j").find(toy("7400"))


@pytest.mark.parametrize(
    ("code", "put", "message"),
    [
        pytest.param("c3", Bytes("9090", "two bytes"), "2 bytes do not fit into 'ret'", id="too-long"),
        pytest.param("c3", TAKEN, "only a conditional branch", id="no-branch"),
        pytest.param("c3", SIGN, "only a conditional branch", id="no-condition"),
        pytest.param("c3", Into("start"), "only a call or a jump", id="goes-nowhere"),
    ],
)
def test_an_edit_that_makes_no_sense_is_refused(code: str, put: Replacement, message: str) -> None:
    with pytest.raises(EditError, match=message):
        Edit(Place("start", "ret"), put).apply(toy(code))


def test_a_label_that_is_not_there_is_named() -> None:
    with pytest.raises(EditError, match="linux4 has no symbol 'no_such_entry'"):
        Place("no_such_entry", "ret").find(LINUX4)


@pytest.mark.parametrize("mutant", [one for one in MUTANTS.values() if one.changes], ids=lambda one: one.name)
def test_every_change_of_a_mutant_changes_something(mutant: Mutant) -> None:
    for change in mutant.changes:
        changed = change.apply(LINUX4)
        assert (changed.edits, changed.alternatives, changed.scenarios) != (LINUX4.edits, LINUX4.alternatives, LINUX4.scenarios)
        assert change.words(LINUX4)


def word(target: Target, profile: str, region: layout.Region, offset: int) -> int:
    page = patched(target.pages, target.alternatives[profile])[FRAMES[region.name]]
    return int.from_bytes(page[offset : offset + 8], "little")


@pytest.mark.parametrize("profile", LINUX4.alternatives)
def test_a_gate_differs_in_one_field(profile: str) -> None:
    """Figure 7-8 of SDM Vol. 3A: the type is in bits 43 to 40."""
    changed = Gate(14, "type", 0xF).apply(LINUX4)

    assert word(changed, profile, layout.IDT, 14 * 16) ^ word(LINUX4, profile, layout.IDT, 14 * 16) == 1 << 40


@pytest.mark.parametrize("profile", LINUX4.alternatives)
def test_a_stack_pointer_of_the_tss_is_off(profile: str) -> None:
    """Figure 8-11 of SDM Vol. 3A: RSP0 stands at offset 4, IST4 at offset 60."""
    place = layout.TSS_OFFSET + 4

    assert word(Tss("rsp0", -8).apply(LINUX4), profile, layout.PERCPU, place) == word(LINUX4, profile, layout.PERCPU, place) - 8
    moved = TssStack("ist4", layout.NMI_STACK).apply(LINUX4)
    assert word(moved, profile, layout.PERCPU, layout.TSS_OFFSET + 60) == layout.NMI_STACK.end


def test_a_register_is_changed_in_every_scenario() -> None:
    changed = Register("sfmask", "does not clear IF", without=1 << 9).apply(LINUX4)

    assert {scenario.registers["sfmask"] for scenario in changed.scenarios} == {0x4_7500}


def test_alternatives_of_one_feature_are_left_out() -> None:
    changed = NotPatched("fsgsbase").apply(LINUX4)

    assert len(changed.alternatives["intel"]) < len(LINUX4.alternatives["intel"])
    assert changed.alternatives["intel-2010"] == LINUX4.alternatives["intel-2010"]
