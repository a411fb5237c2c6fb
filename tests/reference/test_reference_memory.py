"""Data accesses: canonical form, #SS for the stack, alignment, page crossings, and flags that mean nothing (SDM Vol. 1 and 3A)."""

from __future__ import annotations

import pytest
from reference_machine import (
    FIRST_KERNEL_PAGE,
    KERNEL_DATA,
    KERNEL_RSP,
    KERNEL_STACK,
    LAST_USER_PAGE,
    NOT_CANONICAL,
    PRESENT,
    USER_DATA,
    USER_RSP,
    WRITABLE,
    gate,
    handler,
    outcome,
    peek,
    q,
    run,
)  # fmt: skip

from reference.profiles import Cr4

AC = 0x4_0000
MINUS_ONE = 0xFFFF_FFFF_FFFF_FFFF


@pytest.mark.parametrize(
    ("code", "parts", "expected"),
    [
        pytest.param("488b00", {"rax": NOT_CANONICAL}, "#GP(0x0)", id="first-address-past-the-low-half"),
        pytest.param("488b00", {"rax": FIRST_KERNEL_PAGE - 1}, "#GP(0x0)", id="last-address-before-the-high-half"),
        pytest.param("488b00", {"rax": NOT_CANONICAL - 4}, "#GP(0x0)", id="access-that-leaves-the-low-half"),
        pytest.param("8b00", {"rax": NOT_CANONICAL - 4}, "ended", id="access-that-ends-with-the-low-half"),
        pytest.param("488b00", {"rax": FIRST_KERNEL_PAGE}, "ended", id="first-address-of-the-high-half"),
        pytest.param("488b00", {"rax": MINUS_ONE}, "#PF(0x0)", id="access-that-wraps-around"),
        pytest.param("488b0424", {"rsp": NOT_CANONICAL}, "#SS(0x0)", id="rsp-as-base"),
        pytest.param("488b4500", {"rbp": NOT_CANONICAL}, "#SS(0x0)", id="rbp-as-base"),
        pytest.param("418b0424", {"r12": NOT_CANONICAL}, "#GP(0x0)", id="r12-as-base"),
        pytest.param("418b4500", {"r13": NOT_CANONICAL}, "#GP(0x0)", id="r13-as-base"),
        pytest.param("65488b4500", {"rbp": NOT_CANONICAL}, "#GP(0x0)", id="rbp-as-base-with-gs"),
        pytest.param("488b0428", {"rbp": NOT_CANONICAL}, "#GP(0x0)", id="rbp-as-index"),
        pytest.param("50", {"rsp": NOT_CANONICAL + 8}, "#SS(0x0)", id="push"),
        pytest.param("58", {"rsp": NOT_CANONICAL}, "#SS(0x0)", id="pop"),
        pytest.param("65488b00", {"rax": 1, "gs_base": NOT_CANONICAL - 1}, "#GP(0x0)", id="base-and-offset-together"),
        pytest.param("65488b00", {"rax": 1 << 63, "gs_base": (1 << 63) + KERNEL_DATA & MINUS_ONE}, "ended", id="the-sum-counts"),
        pytest.param("ff30", {"rax": NOT_CANONICAL}, "#GP(0x0)", id="push-from-memory"),
        pytest.param("8f00", {"rax": NOT_CANONICAL}, "#GP(0x0)", id="pop-to-memory"),
        pytest.param("c3", {"rsp": NOT_CANONICAL}, "#SS(0x0)", id="ret"),
        pytest.param("c9", {"rbp": NOT_CANONICAL}, "#SS(0x0)", id="leave"),
        pytest.param("48cf", {"rsp": NOT_CANONICAL}, "#SS(0x0)", id="iret"),
        pytest.param("48cb", {"rsp": NOT_CANONICAL}, "#SS(0x0)", id="retf"),
        pytest.param("aa", {"rdi": NOT_CANONICAL}, "#GP(0x0)", id="stos"),
        pytest.param("0fb300", {"rax": NOT_CANONICAL}, "#GP(0x0)", id="bit-test"),
    ],
)
def test_an_address_that_is_not_canonical(code: str, parts: dict[str, int], expected: str) -> None:
    stacks = {vector: gate(handler(vector), ist=1) for vector in (12, 13, 14)}

    assert outcome(run(code, idt=stacks, **parts)) == expected


def test_an_access_across_two_pages_takes_bytes_from_both() -> None:
    boundary = KERNEL_DATA + 0x1000
    read = run("488b00", rax=boundary - 3, memory={boundary - 3: bytes(range(1, 9))})
    written = run("48890f", rdi=boundary - 3, rcx=0x0807_0605_0403_0201)

    assert read.register("rax") == 0x0807_0605_0403_0201
    assert [peek(written, boundary - 3, 3), peek(written, boundary, 5)] == [0x03_0201, 0x08_0706_0504]


@pytest.mark.parametrize(("code", "expected"), [("488b00", "#PF(0x0)"), ("488908", "#PF(0x2)")])
def test_a_fault_on_the_second_page_reports_its_first_byte_and_nothing_is_written(code: str, expected: str) -> None:
    second = KERNEL_DATA + 0x1000

    ended = run(code, rax=second - 1, rcx=MINUS_ONE, paging={(1, second): (0, PRESENT)})

    assert (outcome(ended), ended.register("cr2")) == (expected, second)
    assert KERNEL_DATA >> 12 not in ended.memory


def test_a_write_that_may_only_reach_its_first_page_writes_nothing() -> None:
    second = KERNEL_DATA + 0x1000

    ended = run("488908 f4", rax=second - 1, rcx=MINUS_ONE, paging={(1, second): (0, WRITABLE)}, handlers={14: "488b18 cdf1"}, rbx=0)

    assert (outcome(ended), ended.register("rbx")) == ("#PF(0x3)", 0)


ALIGNED = {"rflags": AC, "cr0": 0x8005_0033}


@pytest.mark.parametrize(
    ("code", "offset", "faults"),
    [
        pytest.param("8a00", 1, False, id="byte"),
        pytest.param("668b00", 1, True, id="word-at-1"),
        pytest.param("668b00", 2, False, id="word-at-2"),
        pytest.param("8b00", 2, True, id="doubleword-at-2"),
        pytest.param("8b00", 4, False, id="doubleword-at-4"),
        pytest.param("488b00", 4, True, id="quadword-at-4"),
        pytest.param("488900", 4, True, id="write"),
        pytest.param("488b00", 8, False, id="quadword-at-8"),
        pytest.param("480100", 4, True, id="read-modify-write"),
    ],
)
def test_a_misaligned_access_at_cpl_3_faults_with_am_and_ac(code: str, offset: int, faults: bool) -> None:
    expected = "#AC(0x0)" if faults else "ended"

    assert outcome(run(code, 3, rax=USER_DATA + offset, **ALIGNED)) == expected


@pytest.mark.parametrize(
    ("cpl", "parts"),
    [
        pytest.param(0, {}, id="cpl-0"),
        pytest.param(3, {"rflags": 0}, id="ac-clear"),
        pytest.param(3, {"cr0": 0x8001_0033}, id="am-clear"),
    ],
)
def test_alignment_is_checked_only_if_all_three_ask_for_it(cpl: int, parts: dict[str, int]) -> None:
    assert outcome(run("488b00", cpl, rax=USER_DATA + 1, **{**ALIGNED, **parts})) == "ended"


def test_a_misaligned_push_is_an_alignment_fault_too() -> None:
    assert outcome(run("50", 3, rsp=USER_RSP + 4, **ALIGNED)) == "#AC(0x0)"


def test_setting_ac_starts_the_alignment_checks() -> None:
    # mov rcx, [rax]; push 0x40000; popf; mov rcx, [rax]
    ended = run("488b08 6800000400 9d 488b08", 3, rax=USER_DATA + 1, cr0=0x8005_0033)

    assert (outcome(ended), ended.deliveries[0].rip & 0xFF) == ("#AC(0x0)", 9)


def test_pushes_of_an_interrupt_frame_are_not_checked_for_alignment() -> None:
    assert outcome(run("0f0b", 3, tss={4: q(KERNEL_RSP + 1)}, **ALIGNED)) == "#UD"


@pytest.mark.parametrize("offset", [1, 0xFFC])
def test_the_order_of_alignment_and_page_faults_is_open(offset: int) -> None:
    ended = run(
        "488b00",
        3,
        rax=USER_DATA + offset,
        paging={(1, USER_DATA + offset & ~0xFFF if offset == 1 else USER_DATA + 0x1000): (0, PRESENT)},
        **ALIGNED,
    )

    assert outcome(ended) == "not modelled: misaligned access to a page that faults"


def test_addresses_with_a_67_prefix_wrap_at_32_bits() -> None:
    # mov al, [eax + ecx]
    ended = run("678a0408", rax=0xFFFF_FFFF_FFFF_FFFF, rcx=USER_DATA + 1, memory={USER_DATA: b"\x55"})

    assert ended.register("rax") & 0xFF == 0x55


@pytest.mark.parametrize(
    ("code", "base"),
    [
        pytest.param("64488b00", "fs_base", id="fs"),
        pytest.param("65488b00", "gs_base", id="gs"),
        pytest.param("65678b00", "gs_base", id="gs-with-32-bit-offset"),
    ],
)
def test_fs_and_gs_add_their_base(code: str, base: str) -> None:
    ended = run(code, rax=0x10, memory={KERNEL_DATA + 0x10: b"\x55"}, **{base: KERNEL_DATA})

    assert ended.register("rax") == 0x55


@pytest.mark.parametrize("prefix", ["26", "2e", "36", "3e"])
def test_other_segment_overrides_add_nothing_in_64_bit_mode(prefix: str) -> None:
    ended = run(prefix + "488b00", rax=KERNEL_DATA, memory={KERNEL_DATA: b"\x55"}, ds=0x60, gdt={0x60: 0x00CF_9300_0010_FFFF})

    assert ended.register("rax") == 0x55


def test_a_rip_relative_address_counts_from_the_next_instruction() -> None:
    ended = run("488b05 02000000 cdf1 1122334455667788")

    assert ended.register("rax") == 0x8877_6655_4433_2211


# The flags after `and` hold an AF that means nothing; these images of RFLAGS are followed through memory.
AND, PUSHF, POPF, CMC = "21c0", "9c", "9d", "f5"
AF = 0x10


def test_undefined_flags_are_reported() -> None:
    assert run(AND).undefined.rflags == AF
    assert run(AND + "01c0").undefined.rflags == 0


def test_an_image_of_undefined_flags_is_reported_by_its_physical_address() -> None:
    ended = run(AND + PUSHF)

    assert list(ended.undefined.words.values()) == [AF]
    assert [address & 0xFFF for address in ended.undefined.words] == [KERNEL_RSP - 8 & 0xFFF]


def test_images_of_undefined_flags_are_followed_in_user_mode_too() -> None:
    ended = run(AND + PUSHF + "01c0" + POPF, 3, cr4=0x60 | Cr4.SMAP)

    assert (outcome(ended), ended.undefined.rflags) == ("ended", AF)


def test_a_frame_pushed_on_undefined_flags_has_an_undefined_image() -> None:
    assert list(run(AND + "0f0b").undefined.words.values()) == [AF]


def test_a_frame_over_an_older_image_replaces_it() -> None:
    # popping it leaves it below RSP, where the frame's SS goes
    words = run(AND + PUSHF + "488d642408 0f0b").undefined.words

    assert [(address & 0xFFF, bits) for address, bits in words.items()] == [(KERNEL_RSP - 24 & 0xFFF, AF)]


def test_undefined_flags_in_a_register_are_outside_the_model() -> None:
    assert outcome(run(AND + PUSHF + "58")) == "not modelled: reads undefined flags from memory"
    assert outcome(run(AND + PUSHF + "488d642408 58")) == "ended"


@pytest.mark.parametrize("code", ["c3", "66c3", "cb", "48cf", "ff2c24"], ids=["ret", "retw", "retf", "iretq", "jmp-far"])
def test_a_return_to_undefined_flags_is_outside_the_model(code: str) -> None:
    assert outcome(run(AND + PUSHF + code)) == "not modelled: reads undefined flags from memory"


def test_images_are_followed_while_a_data_breakpoint_is_armed() -> None:
    ended = run(AND + PUSHF, dr0=KERNEL_DATA, dr7=0x1_0401)

    assert list(ended.undefined.words.values()) == [AF]


def test_a_pushed_copy_of_an_image_is_as_undefined() -> None:
    words = run(AND + PUSHF + "ff3424").undefined.words

    places = {address & 0xFFF: bits for address, bits in words.items()}
    assert places == {KERNEL_RSP - 16 & 0xFFF: AF, KERNEL_RSP - 8 & 0xFFF: AF}


def test_popf_and_iret_bring_undefined_flags_back() -> None:
    assert run(AND + PUSHF + "01c0" + POPF).undefined.rflags == AF
    assert run(AND + "0f0b", handlers={6: "488304240201c048cf"}).undefined.rflags == AF


@pytest.mark.parametrize(
    "store",
    [
        pytest.param("c60424aa", id="the-byte-with-the-flag"),
        pytest.param("48890424", id="all-of-it"),
        pytest.param("48894424f9", id="overlapping"),
    ],
)
def test_a_store_over_an_image_makes_it_defined(store: str) -> None:
    assert not run(AND + PUSHF + store).undefined.words


@pytest.mark.parametrize(
    "store",
    [
        pytest.param("c6442408aa", id="next-byte"),
        pytest.param("488944240f", id="next-word"),
        pytest.param("c6442401aa", id="the-byte-above-the-flag"),
        pytest.param("c6442407aa", id="the-last-byte-of-it"),
    ],
)
def test_a_store_beside_an_undefined_flag_leaves_it(store: str) -> None:
    assert run(AND + PUSHF + store).undefined.words


@pytest.mark.parametrize(("distance", "kept"), [(-8, True), (-6, False), (8, True)])
def test_a_store_across_two_pages_is_followed_too(distance: int, kept: bool) -> None:
    # The image is the first quadword of the second page; mov [rcx], rcx.
    second = KERNEL_STACK + 0x1000
    ended = run(AND + PUSHF + "488909", rsp=second + 8, rcx=second + distance)

    assert bool(ended.undefined.words) == kept


def test_a_copied_image_is_as_undefined_as_the_original() -> None:
    ended = run(AND + PUSHF + "4889e6 48a5", rdi=KERNEL_DATA)  # mov rsi, rsp; movsq
    bytewise = run(AND + PUSHF + "4889e6 a4", rdi=KERNEL_DATA)

    assert sorted(ended.undefined.words.values()) == [AF, AF]
    assert len(bytewise.undefined.words) == 1


@pytest.mark.parametrize(
    "code",
    [
        pytest.param("d3e0" + CMC, id="cmc"),
        pytest.param("d3e0" + "11c0", id="adc"),
        pytest.param("d3e0" + "19c0", id="sbb"),
        pytest.param("d3e0" + "7200", id="jcc"),
        pytest.param("d3e0" + "0f92c0", id="setcc"),
        pytest.param("d3e0" + "0f42c0", id="cmovcc"),
        pytest.param(AND + "0f05", id="syscall"),
    ],
)
def test_reading_an_undefined_flag_leaves_the_model(code: str) -> None:
    # shl eax, cl with a count of the width leaves CF undefined
    ended = run(code.replace("d3e0", "d2e0"), rcx=9)

    assert outcome(ended).startswith("not modelled: ")


def test_smap_state_is_looked_at_anew_after_the_flags_change() -> None:
    assert outcome(run("8a00", rax=USER_DATA, cr4=0x60 | Cr4.SMAP, rflags=AC)) == "ended"


def test_the_last_page_of_the_low_half_is_ordinary_memory() -> None:
    assert outcome(run("8a00", 3, rax=LAST_USER_PAGE + 0xFFF)) == "ended"
    assert outcome(run("50", rsp=KERNEL_STACK + 8)) == "ended"
