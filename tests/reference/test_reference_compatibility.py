"""Compatibility mode: how it is entered, how code and data are found through segments, and what is outside the model."""

from __future__ import annotations

import pytest
from reference_compatibility import SPARE_SELECTOR, run32, run_in_segment
from reference_machine import (
    CODE,
    DATA,
    GDT_LIMIT,
    KERNEL32_CS,
    KERNEL_DS,
    PRESENT,
    SPARE,
    TSS_SELECTOR,
    USER32_CS,
    USER_CODE,
    USER_CS,
    USER_DATA,
    USER_DS,
    USER_RSP,
    descriptor,
    frame,
    image,
    interrupt,
    outcome,
    run,
)

from reference import fetch
from reference.boot import boot
from reference.decode import Dialect
from reference.image import End
from reference.run import run as run_image

SECOND = USER_CODE + 0x1000


def test_a_run_may_begin_in_compatibility_mode() -> None:
    machine = boot(image("40", 3, cs=USER32_CS))

    assert (machine.compatibility, machine.cpl, machine.rip) == (True, 3, USER_CODE)
    assert not boot(image("90", 3)).compatibility
    assert not boot(image("90")).compatibility


def test_bytes_are_decoded_for_32_bits() -> None:
    ended = run32("40 40 4f", rdi=5)  # inc eax; inc eax; dec edi

    assert [ended.register(name) for name in ("rax", "rdi", "rip", "cs")] == [2, 4, USER_CODE + 5, USER32_CS]


def test_the_same_page_means_other_things_in_the_two_modes() -> None:
    machines = [image("4889d8", 3, cs=cs, ss=USER_DS, rbx=7, rax=3) for cs in (USER_CS, USER32_CS)]  # dec eax; mov eax, ebx

    assert [run_image(made).retired for made in (*machines, *machines)] == [1, 2, 1, 2]


@pytest.mark.parametrize(
    "code",
    [
        pytest.param("0f01f8", id="swapgs"),
        pytest.param("f30faec0", id="rdfsbase"),
        pytest.param("8ec8", id="mov-to-cs"),
        pytest.param("0f20c8", id="mov-from-cr1"),
    ],
)
def test_what_compatibility_mode_does_not_have_raises_ud(code: str) -> None:
    assert outcome(run32(code)) == "#UD"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param({"gdt": {SPARE: descriptor(CODE, 3)}, "cs": SPARE_SELECTOR}, "16-bit code segment", id="16-bit-code"),
        pytest.param({"gdt": {SPARE: descriptor(DATA, 3)}, "ss": SPARE_SELECTOR}, "16-bit stack segment", id="16-bit-stack"),
        pytest.param({"ss": 0}, "an unusable stack segment in compatibility mode", id="null-stack"),
        pytest.param({"rdi": 1 << 32}, "bits 63:32 of a general register in compatibility mode", id="upper-half-of-rdi"),
    ],
)
def test_what_is_outside_the_model_is_no_initial_state(change: dict[str, object], expected: str) -> None:
    ended = run32("", **change)

    assert (ended.end, ended.detail) == (End.NOT_MODELLED, f"initial state: {expected}")


def test_compatibility_mode_in_the_kernel_is_not_modelled() -> None:
    assert run("", cs=KERNEL32_CS, ss=KERNEL_DS).detail == "initial state: compatibility mode below CPL 3"


def test_r8_to_r15_are_kept_whole() -> None:
    assert run32("90", r8=1 << 63, r15=0x1234_5678_9ABC_DEF0).register("r15") == 0x1234_5678_9ABC_DEF0


def test_an_interrupt_saves_a_zero_extended_frame_and_leads_to_64_bit_code() -> None:
    ended = run32("90 fb", rflags=0x202, events=(interrupt(1),))

    assert frame(ended) == (USER_CODE + 1, USER32_CS, 0x202, USER_RSP, USER_DS)
    assert ended.register("cs") == 0x10


def test_a_fault_saves_eip() -> None:
    ended = run32("90 0f0b")

    assert (outcome(ended), frame(ended).rip, frame(ended).cs) == ("#UD", USER_CODE + 1, USER32_CS)


@pytest.mark.parametrize(("base", "rip"), [(0x1000, USER_CODE - 0x1000), (0xFFC0_0000, 0x80_0000)])
def test_code_is_fetched_from_cs_base_plus_eip_in_32_bits(base: int, rip: int) -> None:
    entry = descriptor(CODE, 3, big=True, base=base)
    stub = {USER_CODE: bytes.fromhex("40 cdf1")}

    ended = run_in_segment(entry, rip, stub)

    assert (outcome(ended), ended.register("rax"), ended.register("rip")) == ("ended", 1, rip + 3)


@pytest.mark.parametrize(
    ("limit", "faulting"),
    [
        pytest.param(4, 4, id="half-of-the-last-instruction"),
        pytest.param(3, 4, id="nothing-behind-the-nops"),
        pytest.param(2, 3, id="not-the-last-nop"),
    ],
)
def test_an_instruction_must_lie_within_the_limit_of_cs(limit: int, faulting: int) -> None:
    code = {USER_CODE: bytes.fromhex("90909090 cdf1")}
    whole, short = (descriptor(CODE, 3, big=True, base=USER_CODE, limit=end, granular=False) for end in (5, limit))

    assert outcome(run_in_segment(whole, 0, code)) == "ended"
    ended = run_in_segment(short, 0, code)
    assert (outcome(ended), frame(ended, error_code=True).rip) == ("#GP(0x0)", faulting)


def test_code_with_a_base_is_not_found_by_what_was_decoded_at_its_eip_before() -> None:
    """Flat code at EIP, then a far jump to the same EIP in a segment with a base."""
    again = USER_CODE.to_bytes(4, "little") + SPARE_SELECTOR.to_bytes(2, "little")
    code = {SECOND: bytes.fromhex("4b cdf1")}  # dec ebx
    entry = descriptor(CODE, 3, big=True, base=0x1000)

    ended = run32("40 ea" + again.hex(), memory=code, gdt={SPARE: entry}, gdtr_limit=GDT_LIMIT, rbx=9)

    assert [ended.register(name) for name in ("rax", "rbx")] == [1, 8]


def test_an_instruction_across_two_pages_and_a_missing_page() -> None:
    move = bytes.fromhex("b844332211")

    assert run32(move.hex(), rip=SECOND - 2).register("rax") == 0x1122_3344
    missing = run32("", rip=SECOND - 2, memory={SECOND - 2: move[:2]}, paging={(1, SECOND): (0, PRESENT)})
    assert (outcome(missing), missing.register("cr2")) == ("#PF(0x14)", SECOND)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        pytest.param("b844", "#GP(0x0)", id="valid"),
        pytest.param("0f3a", "not modelled: an invalid instruction at the end of a segment", id="perhaps-invalid"),
    ],
)
def test_an_instruction_that_goes_on_beyond_the_limit_of_cs(code: str, expected: str) -> None:
    size = len(code) // 2
    entry = descriptor(CODE, 3, big=True, base=SECOND - size, limit=size - 1, granular=False)

    assert outcome(run_in_segment(entry, 0, {SECOND - size: bytes.fromhex(code), SECOND: b"\0"})) == expected


def test_a_limit_in_the_next_page_is_a_limit() -> None:
    entry = descriptor(CODE, 3, big=True, base=SECOND - 2, limit=2, granular=False)

    assert outcome(run_in_segment(entry, 0, {SECOND - 2: bytes.fromhex("b844332211")})) == "#GP(0x0)"


@pytest.mark.parametrize(
    ("base", "rip", "expected"),
    [
        pytest.param(0, 0xFFFF_FFF8, "not modelled: an instruction at the end of 4 GBytes", id="eip"),
        pytest.param(0xFFFF_0000, 0xFFF8, "not modelled: an instruction at the end of 4 GBytes", id="linear"),
    ],
)
def test_the_end_of_4_gbytes(base: int, rip: int, expected: str) -> None:
    assert outcome(run_in_segment(descriptor(CODE, 3, big=True, base=base), rip, {})) == expected


def test_instruction_breakpoints_compare_the_linear_address() -> None:
    entry = descriptor(CODE, 3, big=True, base=0x1000)

    ended = run_in_segment(entry, USER_CODE - 0x1000, {USER_CODE: bytes.fromhex("90cdf1")}, dr0=USER_CODE + 1, dr7=0x401)

    assert (outcome(ended), frame(ended).rip) == ("#DB", USER_CODE - 0x1000 + 1)


def test_single_steps_trap_after_each_instruction() -> None:
    ended = run32("40", rflags=0x102)

    assert (outcome(ended), frame(ended).rip, ended.register("dr6")) == ("#DB", USER_CODE + 1, 0xFFFF_4FF0)


def test_a_load_of_a_16_bit_stack_segment_leaves_the_model() -> None:
    parts = {"gdt": {SPARE: descriptor(DATA, 3)}, "gdtr_limit": GDT_LIMIT, "rax": SPARE_SELECTOR}

    assert outcome(run32("8ed0", **parts)) == "not modelled: 16-bit stack segment"
    assert outcome(run("8ed0", 3, **parts)) == "ended"


def test_a_load_of_ss_with_a_flat_segment_opens_a_shadow() -> None:
    ended = run32("8ed0 40 40", rax=USER_DS, rflags=0x102)

    assert (outcome(ended), frame(ended).rip) == ("#DB", USER_CODE + 3)


def test_a_null_selector_in_ss_faults() -> None:
    assert outcome(run32("8ed0")) == "#GP(0x0)"


def test_a_store_into_code_is_seen_by_the_next_fetch() -> None:
    writable = {(1, USER_CODE): (2 | 0x40, 0)}
    ended = run32("c605" + (USER_CODE + 7).to_bytes(4, "little").hex() + "43" + "40", paging=writable)  # inc eax becomes inc ebx

    assert [ended.register(name) for name in ("rax", "rbx")] == [0, 1]


def test_decoded_pages_are_kept_by_mode() -> None:
    run32("40")

    assert fetch._PAGES[Dialect(amd=False, bits=32)]


def test_lar_sees_descriptors_as_in_64_bit_mode() -> None:
    entry = descriptor(DATA, 3, big=True, limit=0xFF, granular=False)
    assert run32("0f02c3", rbx=SPARE_SELECTOR, gdt={SPARE: entry}, gdtr_limit=GDT_LIMIT).register("rax") == 0x0040_F300
    assert run32("0f00c8").register("rax") == TSS_SELECTOR


@pytest.mark.parametrize(
    "code",
    [
        pytest.param("0f20c0", id="mov-from-cr0"),
        pytest.param("0f22c0", id="mov-to-cr0"),
        pytest.param("0f21c0", id="mov-from-dr0"),
        pytest.param("0f23f8", id="mov-to-dr7"),
        pytest.param("0f30", id="wrmsr"),
        pytest.param("0f32", id="rdmsr"),
        pytest.param("f4", id="hlt"),
        pytest.param("fa", id="cli"),
        pytest.param("fb", id="sti"),
        pytest.param("0f0113", id="lgdt"),
        pytest.param("0f011b", id="lidt"),
        pytest.param("0f00d8", id="ltr"),
        pytest.param("0f00d0", id="lldt"),
        pytest.param("0f013b", id="invlpg"),
        pytest.param("0f06", id="clts"),
    ],
)
def test_privileged_instructions_fault(code: str) -> None:
    assert outcome(run32(code, rbx=USER_DATA)) == "#GP(0x0)"
