"""The codec is total and stable: any bytes are a case, and a case has one sequence of bytes."""

from __future__ import annotations

import hashlib
from random import Random

import pytest
from fuzzer_builders import case_bytes, cases, damaged_tables, random_bytes
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzzer.build import build
from fuzzer.case import MAX_EVENTS, MAX_PATCH_BYTES, MAX_PATCHES, Case, canonical, decode, encode
from fuzzer.legal import RULES, legal_event, legal_register
from fuzzer.targets.registry import TARGETS
from fuzzer.targets.tables import REGIONS
from fuzzer.targets.target import Patch
from reference.image import REGISTER_INDEX, REGISTERS, Event, EventKind
from reference.profiles import PROFILES
from reference.run import run


def assert_legal(case: Case) -> None:
    target = TARGETS[case.target]
    cpl = target.scenario(case.scenario).cpl
    for name, value in case.registers:
        assert legal_register(name, value, PROFILES[case.profile], cpl) == value, name
    order = [REGISTER_INDEX[name] for name, _ in case.registers]
    assert order == sorted(set(order))
    assert len(case.memory) <= MAX_PATCHES
    for piece in case.memory:
        assert 0 < len(piece.data) <= MAX_PATCH_BYTES
        assert piece.offset >= 0
        assert piece.offset + len(piece.data) <= REGIONS[piece.region].size
    assert len(case.events) <= MAX_EVENTS
    assert all(legal_event(event) == event for event in case.events)


def test_a_hundred_thousand_random_byte_strings_decode_to_cases_that_keep_their_bytes() -> None:
    rng = Random(2)
    for _ in range(100_000):
        data = random_bytes(rng)

        case = decode(data)

        again = encode(case)
        assert decode(again) == case, data.hex()


@given(case_bytes())
@settings(max_examples=300, deadline=None)
def test_encoding_what_any_bytes_decode_to_is_a_fixed_point(data: bytes) -> None:
    once = encode(decode(data))

    assert encode(decode(once)) == once


@given(cases())
@settings(max_examples=300, deadline=None)
def test_a_canonical_case_comes_back_from_its_bytes(case: Case) -> None:
    assert canonical(case) == case
    assert decode(encode(case)) == case


@given(cases())
@settings(deadline=None)
def test_the_digest_is_that_of_the_bytes_and_the_same_for_equal_cases(case: Case) -> None:
    assert case.digest == hashlib.sha256(encode(case)).hexdigest()
    assert decode(encode(case)).digest == case.digest


@given(cases(), cases())
@settings(deadline=None)
def test_cases_have_the_same_digest_only_if_they_are_equal(one: Case, other: Case) -> None:
    assert (one.digest == other.digest) == (one == other)


@given(case_bytes())
@settings(max_examples=300, deadline=None)
def test_whatever_bytes_decode_to_is_legal_and_builds(data: bytes) -> None:
    case = decode(data)

    image = build(case)

    assert_legal(case)
    assert set(image.registers) == set(REGISTERS)
    assert image.pages.keys() == TARGETS[case.target].pages.keys()
    assert all(len(page) == 4096 for page in image.pages.values())
    assert image.events == case.events


@given(st.sampled_from(sorted(RULES)), st.integers(0, (1 << 64) - 1), st.sampled_from(sorted(PROFILES)), st.sampled_from((0, 3)))
@settings(deadline=None)
def test_a_legal_register_value_stays_as_it_is(name: str, value: int, profile: str, cpl: int) -> None:
    once = legal_register(name, value, PROFILES[profile], cpl)

    assert legal_register(name, once, PROFILES[profile], cpl) == once


def test_bytes_mean_the_same_for_ever() -> None:
    data = bytes.fromhex("01 02 0100 00 887766554433221101 00 1000 02 909002 0300 00 2102 0100 01 02".replace(" ", ""))

    case = decode(data)

    assert case == Case(
        "snippets",
        "kernel-user-gs",
        "amd",
        (("rax", 0x1122_3344_5566_7788),),
        (Patch("user_code", 0x10, b"\x90\x90"),),
        (Event(1, EventKind.NMI, 2), Event(3, EventKind.INTERRUPT, 0x21)),
    )


@pytest.mark.parametrize("size", range(4))
def test_what_is_missing_at_the_end_of_the_head_is_zero(size: int) -> None:
    assert decode(b"\0" * size) == Case("linux4", "interrupt-from-user", "intel")


@pytest.mark.parametrize("cut", range(1, 10))
def test_a_record_that_is_cut_off_is_filled_with_zeros(cut: int) -> None:
    whole = bytes.fromhex("000000 00 00 8877665544332211".replace(" ", ""))
    short = whole[:-cut]

    assert decode(short) == decode(short.ljust(len(whole), b"\0"))


def test_a_patch_is_cut_at_the_end_of_its_region() -> None:
    size = REGIONS["gdt"].size

    case = canonical(Case("snippets", "user", "intel", memory=(Patch("gdt", size + size - 2, b"\1\2\3\4"),)))

    assert case.memory == (Patch("gdt", size - 2, b"\1\2"),)


def test_an_interrupt_never_has_the_vector_of_an_exception_or_of_the_ending_interrupt() -> None:
    for vector in range(256):
        event = legal_event(Event(0, EventKind.INTERRUPT, vector))

        assert 32 <= event.vector <= 255
        assert event.vector != 0xF1


def test_the_specification_takes_every_case() -> None:
    rng = Random(3)
    for _ in range(2_000):
        data = random_bytes(rng)

        observation = run(build(decode(data)))

        assert len(observation.registers) == len(REGISTERS) or observation.detail.startswith("initial state"), data.hex()


def test_the_specification_takes_cases_with_damaged_tables() -> None:
    rng = Random(4)
    for _ in range(1_000):
        run(build(damaged_tables(rng)))
