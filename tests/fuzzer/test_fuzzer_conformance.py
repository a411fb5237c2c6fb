"""The conformance checks pass on the cores of this project, and each of them sees a core that breaks its promise."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import pytest

from fuzzer.conformance import CHECKS, check_core
from fuzzer.cores.core import Core
from fuzzer.cores.registry import CORES, load
from fuzzer.cores.unicorn.core import UnicornCore
from reference.image import REGISTER_INDEX, End, Image, Observation, Step

PARTIAL = ("silicon",)
"""Cores for the machines of one privilege level: what they refuse is no promise broken."""


@pytest.mark.parametrize("name", CORES)
def test_a_core_of_this_project_conforms(name: str) -> None:
    version, reason = CORES[name].available()
    if version is None and not os.environ.get("CI"):
        pytest.skip(f"{name}: {reason}")

    results = check_core(load(name))

    assert [f"{each.name}: {each.detail}" for each in results if each.state == "broken"] == []
    if name not in PARTIAL:
        assert [f"{each.name}: {each.detail}" for each in results if each.state == "skipped"] == []


class Broken:
    """Unicorn, with what it observes changed on the way out."""

    name = "broken"
    version = "0"
    delivers_events = False

    def __init__(self, change: Callable[[Image, Observation, int], Observation]) -> None:
        self._core = UnicornCore()
        self._change = change
        self._runs = 0

    def run(self, images: Sequence[Image]) -> Iterator[Observation]:
        for image, observation in zip(images, self._core.run(images), strict=True):
            self._runs += 1
            yield self._change(image, observation, self._runs)

    def trace(self, image: Image) -> Iterator[Step]:
        for step in self._core.trace(image):
            yield replace(step, registers=(0, *step.registers[1:]))


def off(name: str) -> Callable[[Image, Observation, int], Observation]:
    """A register that is one too large."""

    def change(image: Image, observation: Observation, run: int) -> Observation:
        values = list(observation.registers)
        values[REGISTER_INDEX[name]] += 1
        return replace(observation, registers=tuple(values))

    return change


def instead(end: End, other: End) -> Callable[[Image, Observation, int], Observation]:
    return lambda image, observation, run: replace(observation, end=other) if observation.end is end else observation


def late(image: Image, observation: Observation, run: int) -> Observation:
    """Events come a boundary too late: what the same image shows with its events moved."""
    moved = replace(image, events=tuple(replace(event, boundary=event.boundary + 1) for event in image.events))
    return next(iter(UnicornCore().run([moved])))


BREAKAGES: dict[str, Callable[[Image, Observation, int], Observation]] = {
    "registers": off("kernel_gs_base"),
    "memory": lambda image, observation, run: replace(observation, memory={}),
    "faults": off("cr2"),
    "halted": instead(End.HALTED, End.DID_NOT_END),
    "did-not-end": instead(End.DID_NOT_END, End.HALTED),
    "shutdown": instead(End.SHUTDOWN, End.HALTED),
    "nmi-arrival": late,
    "interrupt-arrival": late,
    "nothing-left": lambda image, observation, run: off("dr6")(image, observation, run) if run % 5 == 0 else observation,
    "trace": lambda image, observation, run: observation,
}


def test_every_check_has_a_core_that_breaks_it() -> None:
    assert set(BREAKAGES) == {check.name for check in CHECKS}


@pytest.mark.parametrize("name", BREAKAGES)
def test_a_check_sees_the_core_that_breaks_it(name: str) -> None:
    core: Core = Broken(BREAKAGES[name])

    states = {each.name: each.state for each in check_core(core)}

    assert states[name] == "broken"


def test_what_a_core_cannot_express_is_skipped_with_its_reason() -> None:
    refusing = Broken(lambda image, observation, run: Observation(End.UNSUPPORTED, detail="no kernel here"))

    results = {each.name: each for each in check_core(refusing)}

    assert (results["memory"].state, results["memory"].detail) == ("skipped", "no kernel here")
