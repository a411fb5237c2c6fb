"""Comparison and explanation: whatever a core does wrong is seen, and the step is named; what the manual leaves open is tolerated."""

from __future__ import annotations

import pytest
from fuzzer_builders import both, generated, interrupt, nmi, snippet
from fuzzer_wrong_cores import Damage, Moment, WrongCore

from fuzzer.build import build
from fuzzer.case import Case
from fuzzer.compare import Comparison, compare, place_of
from fuzzer.cores.unicorn.core import UnicornCore
from fuzzer.explain import Explanation, explain
from fuzzer.targets import layout, tables
from fuzzer.tolerances import TOLERANCES, UNDEFINED_FLAGS
from reference.bits import AF, CF, IF, RF
from reference.image import PAGE, REGISTER_INDEX, End, Image, Observation, Undefined
from reference.run import run

THREAD = layout.THREAD_STACK
RSP = THREAD.end - 0x100
FRAME = RSP - 40
"""Of an interrupt from the kernel: RIP, CS, RFLAGS, RSP, SS."""

INTERRUPTED = snippet("90 31db 90", events=[interrupt(2)], rsp=RSP, rbx=5)
FAULTING = snippet("90 0f0b", rsp=RSP)
SELECTOR_FAULT = snippet("90 8ed8", rsp=RSP, rax=0xFFF8)
USER_NMI = snippet("90 90", "user", events=[nmi(1)])
SWAPPING = snippet("90 0f01f8 90", rsp=RSP)


def after_delivery(damage: Damage) -> Damage:
    return lambda moment: damage(moment) if moment.deliveries else None


def saved_flags(flag: int) -> Damage:
    return after_delivery(lambda moment: moment.set_word(THREAD, FRAME + 16, moment.word(THREAD, FRAME + 16) ^ flag))


def saved_word(word: int) -> Damage:
    return after_delivery(lambda moment: moment.set_word(THREAD, FRAME + 8 * word, moment.word(THREAD, FRAME + 8 * word) ^ 0x10))


def exchange_gs(moment: Moment) -> None:
    registers = moment.registers
    registers["gs_base"], registers["kernel_gs_base"] = registers["kernel_gs_base"], registers["gs_base"]


swap_gs = after_delivery(exchange_gs)


@after_delivery
def stack_16_lower(moment: Moment) -> None:
    moment.registers["rsp"] -= 16


@after_delivery
def keep_if(moment: Moment) -> None:
    moment.registers["rflags"] |= IF


@after_delivery
def no_error_code(moment: Moment) -> None:
    moment.set_word(THREAD, FRAME - 8, 0)


def no_swapgs(moment: Moment) -> None:
    if moment.retired >= 2:
        exchange_gs(moment)


@after_delivery
def push_16_lower(moment: Moment) -> None:
    """The whole frame, and RSP for as long as the handler runs."""
    for word in range(5):
        moment.set_word(THREAD, FRAME - 16 + 8 * word, moment.word(THREAD, FRAME + 8 * word))
    if layout.KERNEL_TEXT.start <= moment.registers["rip"] < layout.KERNEL_TEXT.end:
        moment.registers["rsp"] -= 16


def rbx_from_the_second_instruction_on(moment: Moment) -> None:
    if moment.retired >= 2:
        moment.registers["rbx"] += 1


DAMAGES = [
    # the damage, the case, cause, area, fields, boundaries before it
    pytest.param(saved_flags(CF), INTERRUPTED, "event delivery", "stack", ("frame.rflags.CF",), 2, id="flips-a-saved-flag"),
    pytest.param(saved_flags(RF), INTERRUPTED, "event delivery", "stack", ("frame.rflags.RF",), 2, id="saves-rf"),
    pytest.param(saved_word(0), INTERRUPTED, "event delivery", "stack", ("frame.rip",), 2, id="saves-another-rip"),
    pytest.param(saved_word(3), INTERRUPTED, "event delivery", "stack", ("frame.rsp",), 2, id="saves-another-rsp"),
    pytest.param(swap_gs, INTERRUPTED, "event delivery", "gs", ("gs_base", "kernel_gs_base"), 2, id="swaps-gs-on-delivery"),
    pytest.param(swap_gs, USER_NMI, "event delivery", "gs", ("gs_base", "kernel_gs_base"), 1, id="swaps-gs-on-an-nmi"),
    pytest.param(no_swapgs, SWAPPING, "swapgs", "gs", ("gs_base", "kernel_gs_base"), 1, id="swapgs-does-nothing"),
    pytest.param(stack_16_lower, FAULTING, "ud2", "stack", ("rsp",), 1, id="rsp-16-lower"),
    pytest.param(keep_if, FAULTING, "ud2", "flags", ("rflags.IF",), 1, id="does-not-clear-if"),
    pytest.param(no_error_code, SELECTOR_FAULT, "mov to ds", "stack", ("frame.error_code",), 1, id="wrong-error-code"),
    pytest.param(rbx_from_the_second_instruction_on, INTERRUPTED, "xor", "other", ("rbx",), 1, id="wrong-result"),
]


def explained(core: WrongCore, case: Case) -> tuple[Comparison, Explanation]:
    image = build(case)
    (seen,) = core.run([image])
    explanation = explain(image, core)
    assert explanation is not None
    return compare(image, run(image), seen), explanation


@pytest.mark.parametrize(("damage", "case", "cause", "area", "fields", "step"), DAMAGES)
def test_a_wrong_step_is_seen_and_named(
    core: UnicornCore, damage: Damage, case: Case, cause: str, area: str, fields: tuple[str, ...], step: int
) -> None:
    comparison, explanation = explained(WrongCore(core, damage), case)

    assert comparison.comparable
    assert comparison.differences
    assert explanation.step == step
    assert explanation.signature.cause == cause
    assert explanation.signature.area == area
    assert explanation.signature.fields == fields
    assert explanation.signature.core == "wrong"


def test_a_frame_that_is_pushed_16_bytes_lower_is_seen_when_the_interrupt_has_returned(core: UnicornCore) -> None:
    comparison, explanation = explained(WrongCore(core, push_16_lower), INTERRUPTED)

    assert all(each.field.startswith("memory:thread_stack") for each in comparison.differences)
    assert explanation.signature.cause == "event delivery"
    assert explanation.signature.area == "stack"
    assert "rsp" in explanation.signature.fields


@pytest.mark.parametrize("case", [INTERRUPTED, FAULTING, SELECTOR_FAULT, USER_NMI, SWAPPING])
def test_the_same_core_without_damage_is_right(core: UnicornCore, case: Case) -> None:
    image = build(case)
    right = WrongCore(core, lambda moment: None)

    assert compare(image, run(image), next(right.run([image]))) == Comparison()
    assert explain(image, right) is None


def test_the_step_of_an_instruction_is_shown_with_its_bytes(core: UnicornCore) -> None:
    _, explanation = explained(WrongCore(core, rbx_from_the_second_instruction_on), INTERRUPTED)

    assert (explanation.address, explanation.code) == (layout.KERNEL_CODE.start + 1, bytes.fromhex("31db"))
    assert explanation.text == "xor ebx,ebx"


def test_a_core_that_does_not_end_where_the_specification_does_differs(core: UnicornCore) -> None:
    image = build(FAULTING)
    spec, seen = both(core, FAULTING)

    halted = Observation(End.HALTED, seen.registers, seen.memory)

    assert [each.field for each in compare(image, spec, halted).differences] == ["end"]


@pytest.mark.parametrize("end", [End.CORE_CRASHED, End.CORE_HUNG, End.CORE_ERROR])
def test_a_crash_without_a_state_is_a_difference(core: UnicornCore, end: End) -> None:
    image = build(FAULTING)

    comparison = compare(image, run(image), Observation(end))

    assert [(each.field, each.observed) for each in comparison.differences] == [("end", end.value)]


@pytest.mark.parametrize("end", [End.NOT_MODELLED, End.UNSUPPORTED])
@pytest.mark.parametrize("whose", ["spec", "core"])
def test_an_end_that_says_nothing_is_not_compared(core: UnicornCore, end: End, whose: str) -> None:
    image = build(FAULTING)
    spec, seen = both(core, FAULTING)

    comparison = compare(image, Observation(end), seen) if whose == "spec" else compare(image, spec, Observation(end))

    assert comparison == Comparison(comparable=False)


# Every register and every word counts


@pytest.mark.parametrize("name", REGISTER_INDEX)
def test_one_bit_of_any_register_is_a_difference(core: UnicornCore, name: str) -> None:
    image = build(FAULTING)
    spec, seen = both(core, FAULTING)
    registers = list(seen.registers)
    registers[REGISTER_INDEX[name]] ^= 1 << 5

    comparison = compare(image, spec, Observation(seen.end, tuple(registers), seen.memory))

    assert [each.field for each in comparison.differences] == [name]


@pytest.mark.parametrize("region", [region for region in tables.REGIONS if region != "end_stack"])
def test_one_bit_of_any_region_is_a_difference(core: UnicornCore, region: str) -> None:
    image = build(FAULTING)
    spec, seen = both(core, FAULTING)
    frame = tables.FRAMES[region]
    page = bytearray(seen.memory.get(frame, image.pages[frame]))
    page[0x123] ^= 1

    comparison = compare(image, spec, Observation(seen.end, seen.registers, {**seen.memory, frame: bytes(page)}))

    assert [each.field for each in comparison.differences] == [f"memory:{region}+0x120"]


def test_a_place_is_named_by_its_region() -> None:
    assert place_of(tables.FRAMES["thread_stack"] * PAGE + PAGE + 0x18) == "thread_stack+0x1018"


# Undefined flags


def observations(image: Image, rflags: int, other_rflags: int, undefined: int) -> tuple[Observation, Observation]:
    registers = [image.registers[name] for name in REGISTER_INDEX]
    registers[REGISTER_INDEX["rflags"]] = rflags
    other = [*registers]
    other[REGISTER_INDEX["rflags"]] = other_rflags
    return Observation(End.ENDED, tuple(registers), undefined=Undefined(undefined)), Observation(End.ENDED, tuple(other))


@pytest.mark.parametrize(
    ("rflags", "other", "undefined", "differs"),
    [
        pytest.param(2, 2 | AF, AF, False, id="undefined"),
        pytest.param(2 | AF, 2, AF, False, id="undefined-the-other-way"),
        pytest.param(2, 2 | CF, AF, True, id="defined"),
        pytest.param(2, 2 | CF | AF, AF, True, id="one-of-each"),
        pytest.param(2, 2 | AF, 0, True, id="none-undefined"),
    ],
)
def test_flags_differ_where_the_manual_defines_them(rflags: int, other: int, undefined: int, differs: bool) -> None:
    image = build(FAULTING)
    spec, seen = observations(image, rflags, other, undefined)

    comparison = compare(image, spec, seen)

    assert [each.field for each in comparison.differences] == (["rflags"] if differs else [])
    assert comparison.tolerated == (() if differs else (UNDEFINED_FLAGS.id,))


@pytest.mark.parametrize(("flag", "differs"), [(AF, False), (CF, True)])
def test_saved_flags_differ_where_the_manual_defines_them(flag: int, differs: bool) -> None:
    image = build(FAULTING)
    frame = tables.FRAMES["thread_stack"]
    page = image.pages[frame]
    registers = tuple(image.registers[name] for name in REGISTER_INDEX)
    spec = Observation(End.ENDED, registers, undefined=Undefined(0, {frame * PAGE: AF}))
    seen = Observation(End.ENDED, registers, {frame: flag.to_bytes(8, "little") + page[8:]})

    comparison = compare(image, spec, seen)

    assert [each.field for each in comparison.differences] == (["memory:thread_stack+0x0"] if differs else [])
    assert comparison.tolerated == (() if differs else (UNDEFINED_FLAGS.id,))


@pytest.mark.parametrize("code", ["f7e1", "9c f7e1 9c", "0fafc1"], ids=["mul", "mul-and-push", "imul"])
def test_what_the_engine_does_with_undefined_flags_is_counted_and_no_divergence(core: UnicornCore, code: str) -> None:
    case = snippet(code, rax=0x12345, rcx=9, rflags=0xAD7)
    spec, seen = both(core, case)

    comparison = compare(build(case), spec, seen)

    assert comparison.differences == ()
    assert set(comparison.tolerated) == {UNDEFINED_FLAGS.id}
    assert explain(build(case), core) is None


def test_a_defined_flag_behind_an_undefined_one_still_counts(core: UnicornCore) -> None:
    case = snippet("f7e1 f9", rax=0x12345, rcx=9, rflags=0xAD7)  # mul ecx; stc
    clears_carry = WrongCore(core, lambda moment: moment.registers.update(rflags=moment.registers["rflags"] & ~CF))
    image = build(case)

    comparison = compare(image, run(image), next(clears_carry.run([image])))

    assert [each.field for each in comparison.differences] == ["rflags"]


def test_every_tolerance_says_why_and_where_it_is_written() -> None:
    assert all(each.id == name and each.why and each.source and each.covers for name, each in TOLERANCES.items())


def test_a_divergence_is_explained_wherever_one_is_found(core: UnicornCore) -> None:
    """The lockstep traces part where the whole runs do."""
    unexplained = []
    for case in generated(31, 300):
        image = build(case)
        spec, seen = run(image), next(core.run([image]))
        differs = bool(compare(image, spec, seen).differences)
        if differs and explain(image, core) is None:
            unexplained.append(case)

    assert len(unexplained) <= 1
