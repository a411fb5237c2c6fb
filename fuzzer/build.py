"""From a case to the image of its machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache

from fuzzer.case import Case
from fuzzer.targets.layout import END_VECTOR, PAGE
from fuzzer.targets.registry import TARGETS
from fuzzer.targets.tables import FRAMES, USER_CR3
from fuzzer.targets.target import SCRATCH, Patch, Target, default_registers
from reference.image import Image
from reference.profiles import PROFILES

LIMITS = {"linux4": 1200, "snippets": 120}
"""Boundaries after which a run has failed to end: several times the longest path of the target."""


def build(case: Case) -> Image:
    """The machine of a canonical case at its first instant."""
    return _image(case, *_scenario(case.target, case.scenario, case.profile))


def builder(target: Target) -> Callable[[Case], Image]:
    """`build` for cases of a target that stands in for the registered one: a changed copy of it, or somebody's own."""
    start = cache(lambda scenario, profile: _start(target, scenario, profile))
    return lambda case: _image(case, *start(case.scenario, case.profile))


def _image(case: Case, pages: Mapping[int, bytes], registers: Mapping[str, int]) -> Image:
    return Image(
        profile=PROFILES[case.profile],
        registers={**registers, **dict(case.registers)} if case.registers else registers,
        pages=patched(pages, case.memory) if case.memory else pages,
        events=case.events,
        end_vector=END_VECTOR,
        scratch=SCRATCH,
        limit=LIMITS.get(case.target, LIMITS["linux4"]),
    )


@cache
def _scenario(target_name: str, scenario_name: str, profile_name: str) -> tuple[Mapping[int, bytes], Mapping[str, int]]:
    """The same objects each time, so that a core can tell what is loaded already."""
    return _start(TARGETS[target_name], scenario_name, profile_name)


def _start(target: Target, scenario_name: str, profile_name: str) -> tuple[Mapping[int, bytes], Mapping[str, int]]:
    """Pages and registers before the case's own differences."""
    scenario = target.scenario(scenario_name)
    profile = PROFILES[profile_name]
    registers = default_registers(profile, scenario.cpl)
    if target.isolates and profile.pti and (scenario.cpl == 3 or scenario.user_tables):
        registers["cr3"] = USER_CR3
    patches = (*target.alternatives.get(profile_name, ()), *scenario.memory, *target.edits)
    return patched(target.pages, patches), {**registers, **scenario.registers}


def patched(pages: Mapping[int, bytes], patches: Iterable[Patch]) -> dict[int, bytes]:
    """`pages` with patches applied; pages that no patch touches are the same objects."""
    result = dict(pages)
    for piece in patches:
        frame, offset, data = FRAMES[piece.region] + piece.offset // PAGE, piece.offset % PAGE, piece.data
        while data:
            page = result[frame]
            result[frame] = (page[:offset] + data[: PAGE - offset] + page[offset + len(data) :])[:PAGE]
            data = data[PAGE - offset :]
            frame, offset = frame + 1, 0
    return result
