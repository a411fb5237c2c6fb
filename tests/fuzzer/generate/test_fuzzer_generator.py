"""The generator: the same case for the same numbers anywhere, always canonical, and in time everything there is."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from random import Random

import pytest
from fuzzer_builders import ALL_PROFILES
from iced_x86 import Decoder, DecoderOptions, Mnemonic

from fuzzer.build import build
from fuzzer.case import Case, canonical, decode, encode
from fuzzer.generate.encode import FORMS
from fuzzer.generate.generator import GENERATORS, generate
from fuzzer.targets.registry import TARGETS
from fuzzer.targets.snippets import CODE_REGIONS
from reference.image import EventKind
from reference.instructions import BY_MNEMONIC, NAMES

ROOT = Path(__file__).parents[3]
TARGET_NAMES = sorted(TARGETS)

_DIGESTS = """
import hashlib, sys
from fuzzer.case import encode
from fuzzer.generate.generator import generate
target, profiles = sys.argv[1], sys.argv[2].split(",")
print(hashlib.sha256(b"".join(encode(generate(11, target, profiles, number)) for number in range(300))).hexdigest())
"""


@cache
def many(target: str, count: int = 6_000) -> tuple[Case, ...]:
    return tuple(generate(1, target, ALL_PROFILES, number) for number in range(count))


def instructions(case: Case) -> Iterator[int]:
    """Mnemonics of the code of a snippet, decoded from its start."""
    start = build(case).registers["rip"]
    region = CODE_REGIONS[case.scenario]
    code = b"".join(piece.data for piece in case.memory if piece.region == region.name and piece.offset == start - region.start)
    options = DecoderOptions.AMD if case.profile == "amd" else DecoderOptions.NONE
    return (instruction.mnemonic for instruction in Decoder(64, code, options, ip=start))


@pytest.mark.parametrize("target", TARGET_NAMES)
def test_another_process_generates_the_same_cases(target: str) -> None:
    here = hashlib.sha256(b"".join(encode(generate(11, target, ALL_PROFILES, number)) for number in range(300))).hexdigest()
    command = [sys.executable, "-c", _DIGESTS, target, ",".join(ALL_PROFILES)]

    for hash_seed in ("1", "2"):
        there = subprocess.run(
            command, cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": hash_seed}, capture_output=True, text=True, check=True, timeout=60
        )
        assert there.stdout.strip() == here


@pytest.mark.parametrize("target", TARGET_NAMES)
def test_the_order_of_generation_does_not_matter(target: str) -> None:
    numbers = list(range(400))
    forwards = {number: generate(5, target, ALL_PROFILES, number) for number in numbers}

    Random(1).shuffle(numbers)

    assert {number: generate(5, target, ALL_PROFILES, number) for number in numbers} == forwards


@pytest.mark.parametrize("target", TARGET_NAMES)
def test_seeds_and_numbers_give_different_cases(target: str) -> None:
    digests = {generate(seed, target, ALL_PROFILES, number).digest for seed in range(5) for number in range(200)}

    assert len(digests) > 900


@pytest.mark.parametrize("target", TARGET_NAMES)
def test_every_generated_case_is_canonical(target: str) -> None:
    for case in many(target):
        assert canonical(case) == case
        assert decode(encode(case)) == case


@pytest.mark.parametrize("target", TARGET_NAMES)
def test_profiles_take_turns(target: str) -> None:
    assert [case.profile for case in many(target)[:30]] == [ALL_PROFILES[number % len(ALL_PROFILES)] for number in range(30)]


@pytest.mark.parametrize("profile", ALL_PROFILES)
@pytest.mark.parametrize("target", TARGET_NAMES)
def test_only_the_profiles_asked_for_come_up(target: str, profile: str) -> None:
    assert {generate(1, target, [profile], number).profile for number in range(50)} == {profile}


@pytest.mark.parametrize("target", TARGET_NAMES)
def test_every_scenario_and_every_kind_of_event_comes_up_on_every_profile(target: str) -> None:
    scenarios = {(case.scenario, case.profile) for case in many(target)}
    kinds = {(event.kind, case.profile) for case in many(target) for event in case.events}

    assert scenarios == {(scenario.name, profile) for scenario in TARGETS[target].scenarios for profile in ALL_PROFILES}
    assert kinds >= {(kind, profile) for kind in (EventKind.INTERRUPT, EventKind.NMI) for profile in ALL_PROFILES}


def test_there_is_a_form_of_every_modelled_instruction() -> None:
    missing = {NAMES[mnemonic] for mnemonic in BY_MNEMONIC.keys() - FORMS.keys()}

    assert missing == set()


def test_every_modelled_instruction_comes_up() -> None:
    seen = {mnemonic for case in many("snippets", 20_000) for mnemonic in instructions(case)}

    missing = {NAMES[mnemonic] for mnemonic in BY_MNEMONIC.keys() - seen}

    assert missing == set()


@pytest.mark.parametrize("target", TARGET_NAMES)
def test_arrival_points_cover_the_path(target: str) -> None:
    """Early boundaries all come up; the generator is not stuck at the start of a path."""
    seen = {event.boundary for case in many(target) for event in case.events}

    assert set(range(10)) <= seen
    assert target != "linux4" or set(range(100)) <= seen


def test_every_target_has_a_generator() -> None:
    assert GENERATORS.keys() == TARGETS.keys()


def test_the_instructions_that_touch_gs_come_up_often() -> None:
    touching = {Mnemonic.SWAPGS, Mnemonic.WRMSR, Mnemonic.WRGSBASE, Mnemonic.IRETQ}
    hits = sum(bool(touching & set(instructions(case))) for case in many("snippets"))

    assert hits > len(many("snippets")) // 4
