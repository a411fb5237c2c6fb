"""Engines that deliver events themselves: exact arrival, nothing left behind, the same results each time, no process left over."""

from __future__ import annotations

import os
from collections.abc import Iterator
from hashlib import sha256

import psutil
import pytest

from fuzzer.build import build
from fuzzer.case import Case
from fuzzer.compare import compare
from fuzzer.conformance import END, user
from fuzzer.cores.guest.assemble import assemble, committed, missing_tools
from fuzzer.cores.guest.native import NativeCore
from fuzzer.cores.registry import CORES, load
from fuzzer.explain import explain
from fuzzer.generate.generator import generate
from reference.image import End, Event, EventKind, Image, Observation
from reference.profiles import PROFILES
from reference.run import run

RF = 1 << 16
SOME = {"qemu": 100, "bochs": 10}
MANY = {"qemu": 1000, "bochs": 40}
"""Cases of each target: Bochs runs some twenty a second where runs have to be stopped on the way."""


@pytest.fixture(scope="module", params=["qemu", "bochs"])
def core(request: pytest.FixtureRequest) -> Iterator[NativeCore]:
    version, reason = CORES[request.param].available()
    if version is None and not os.environ.get("CI"):
        pytest.skip(f"{request.param}: {reason}")
    made = load(request.param)
    assert isinstance(made, NativeCore)
    yield made
    made.close()


@pytest.mark.skipif(bool(missing_tools()), reason="needs GNU binutils")
def test_assembling_the_harness_again_gives_the_committed_bytes() -> None:
    assert assemble() == committed()


def on_path(scenario: str, boundary: int, kind: EventKind, vector: int) -> Image:
    return build(Case("linux4", scenario, "intel", events=(Event(boundary, kind, vector),)))


@pytest.mark.parametrize("scenario", ["divide-error-from-user", "invalid-opcode-from-user", "overflow-from-user32"])
@pytest.mark.parametrize(("kind", "vector"), [(EventKind.NMI, 2), (EventKind.INTERRUPT, 0x21)], ids=["nmi", "interrupt"])
def test_an_event_arrives_at_exactly_its_boundary_on_a_path_with_a_fault(
    core: NativeCore, scenario: str, kind: EventKind, vector: int
) -> None:
    """Every boundary of the path: the end is the manual's, but for RF in frames of faults, which is QEMU's own business."""
    images = [on_path(scenario, boundary, kind, vector) for boundary in range(run(on_path(scenario, 1000, kind, vector)).retired)]

    for boundary, (image, observed) in enumerate(zip(images, core.run(images), strict=True)):
        spec = run(image)
        if spec.end is End.ENDED:
            differences = compare(image, spec, observed).differences
            assert all(isinstance(each.expected, int) and each.expected ^ int(each.observed) == RF for each in differences), boundary


def test_a_fault_that_is_hidden_behind_a_double_fault_is_no_other_exception(core: NativeCore) -> None:
    """Of two faults such an engine shows the second, which is no difference: what is left of one is told by its fields."""
    explanation = explain(on_path("double-fault-from-kernel", 2, EventKind.NMI, 2), core)

    if explanation is not None:
        assert explanation.signature.expected == explanation.signature.observed == "#PF(0) delivered as #DF(0)"
        assert explanation.signature.fields


def some_images(count: int) -> list[Image]:
    profiles = tuple(PROFILES)
    return [build(generate(17, target, profiles, number)) for number in range(count) for target in ("snippets", "linux4")]


def plain(observation: Observation) -> tuple[object, ...]:
    return observation.end, observation.registers, sorted(observation.memory.items())


def test_cases_leave_nothing_behind_for_each_other(core: NativeCore) -> None:
    images = some_images(SOME[core.name])

    forwards = [plain(each) for each in core.run(images)]
    backwards = [plain(each) for each in core.run(images[::-1])][::-1]

    assert [number for number, pair in enumerate(zip(forwards, backwards, strict=True)) if pair[0] != pair[1]] == []


def test_an_interrupt_of_any_vector_is_over_when_its_run_is(core: NativeCore) -> None:
    """Vectors of the first and the last priority class: what stays in service holds back every interrupt behind it (SDM Vol. 3A, 12.8)."""
    images = [on_path("divide-error-from-user", 1, EventKind.INTERRUPT, vector) for vector in (0x20, 0xFF, 0x20, 0xF0, 0x20)]

    found = [plain(each) for each in core.run(images)]

    assert found[0] == found[2] == found[4]
    assert found[1] != found[0]


@pytest.mark.slow
def test_many_cases_leave_nothing_behind_and_come_out_the_same_each_time(core: NativeCore) -> None:
    images = some_images(MANY[core.name])

    digests = [sha256(repr([plain(each) for each in core.run(images)]).encode()).hexdigest() for _ in range(2)]
    backwards = [plain(each) for each in core.run(images[::-1])][::-1]

    assert digests == [sha256(repr(backwards).encode()).hexdigest()] * 2


def test_an_engine_that_was_killed_costs_one_case_at_most(core: NativeCore) -> None:
    images = [user(END) for _ in range(3)]
    list(core.run(images))
    engines = [child for child in psutil.Process().children(recursive=True) if child.name().startswith(core.name)]
    for engine in engines:
        engine.kill()

    ends = [each.end for each in core.run(images)]

    assert engines, "and nothing else of this process: multiprocessing has a helper of its own"
    assert [end for end in ends if end is not End.ENDED] in ([], [End.CORE_CRASHED], [End.CORE_HUNG])
    assert ends[-1] is End.ENDED


def test_a_closed_core_leaves_no_process(core: NativeCore) -> None:
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    other = load(core.name)
    list(other.run([build(Case("snippets", "user", "intel"))]))
    assert isinstance(other, NativeCore)

    other.close()

    alive = {child.pid for child in psutil.Process().children(recursive=True) if child.status() != psutil.STATUS_ZOMBIE}
    assert alive <= before
