"""Engines vote on the step at which one of them parts: those that agree up to there, and those that are asked from there on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from fuzzer_builders import snippet
from fuzzer_wrong_cores import Moment, WrongCore

from fuzzer.alignment import by_boundary
from fuzzer.build import build
from fuzzer.case import encode
from fuzzer.cores.registry import CORES, CoreInfo
from fuzzer.cores.unicorn.core import UnicornCore
from fuzzer.explain import explain
from fuzzer.verdict import Verdict
from fuzzer.vote import Poll, Stance, poll, poll_ends
from reference.image import REGISTERS, End, Image, Observation, Step
from reference.run import run
from reference.trace import trace
from workers.ballots import Ballot

# inc rax; inc rbx; inc rcx
CASE = snippet("48ffc0 48ffc3 48ffc1", rax=0, rbx=0, rcx=0)


class Manual:
    """An engine that does what the manual says: the specification itself, as a core of another origin."""

    version = "1"
    delivers_events = True

    def __init__(self, name: str = "manual") -> None:
        self.name = name

    def run(self, images: Sequence[Image]) -> Iterator[Observation]:
        return map(run, images)

    def trace(self, image: Image) -> Iterator[Step]:
        return by_boundary(trace(image))


class Refusing(Manual):
    def run(self, images: Sequence[Image]) -> Iterator[Observation]:
        return (Observation(End.UNSUPPORTED, detail="not here") for _ in images)

    def trace(self, image: Image) -> Iterator[Step]:
        return iter(())


def wrong(name: str, register: str, by: int = 1, least: int = 1) -> WrongCore:
    """Unicorn with a register that is off by some as soon as it has reached `least`."""

    def damage(moment: Moment) -> None:
        if moment.registers[register] >= least:
            moment.registers[register] += by

    core = WrongCore(UnicornCore(), damage)
    core.name = name
    return core


def polled(accused: WrongCore, *others: object) -> Poll:
    image = build(CASE)
    explanation = explain(image, accused)
    assert explanation is not None
    return poll(image, explanation.signature.text, accused, others)  # type: ignore[arg-type]


def stances(found: Poll) -> dict[str, Stance]:
    return {vote.engine: vote.stance for vote in found.votes[1:]}


def test_engines_are_with_the_specification_with_the_accused_or_with_neither() -> None:
    found = polled(wrong("accused", "rbx"), Manual(), wrong("twin", "rbx"), wrong("third", "rbx", by=2), Refusing("refusing"))

    assert stances(found) == {
        "manual": Stance.SPECIFICATION,
        "twin": Stance.ACCUSED,
        "third": Stance.NEITHER,
        "refusing": Stance.SILENT,
    }


def test_an_engine_with_an_earlier_defect_of_its_own_is_asked_again_from_the_step() -> None:
    """It is wrong in RAX behind the first instruction, which is not run again where the step begins."""

    def damage(moment: Moment) -> None:
        if moment.registers["rax"] == 1 and moment.registers["rbx"] == 0:
            moment.registers["rax"] += 1

    earlier = WrongCore(UnicornCore(), damage)
    earlier.name = "earlier"
    seen = [dict(zip(REGISTERS, step.registers, strict=True))["rax"] for step in earlier.trace(build(CASE))]
    assert seen[1] == 2, "it does part before the step that is voted on"

    assert stances(polled(wrong("accused", "rcx"), earlier)) == {"earlier": Stance.SPECIFICATION}


def test_a_defect_that_is_gone_is_not_seen() -> None:
    found = poll(build(CASE), "", UnicornCore(), [Manual()])

    assert not found.seen


@pytest.mark.parametrize(("end", "stance"), [(End.CORE_CRASHED, Stance.SPECIFICATION), (End.CORE_HUNG, Stance.SPECIFICATION)])
def test_on_a_case_that_the_accused_does_not_survive_the_end_is_voted_on(end: End, stance: Stance) -> None:
    image = build(CASE)

    found = poll_ends(image, run(image), "accused", "1", Observation(end), [Manual(), Refusing("refusing")])

    assert found.seen
    assert stances(found) == {"manual": stance, "refusing": Stance.SILENT}


def ballot(core: str, signature: str) -> Ballot:
    return Ballot(0, "b" * 12, signature, core, "engine", "a rule", "completes", CASE.digest, encode(CASE))


def test_a_ballot_comes_to_a_verdict_and_tells_who_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CORES, "qemu", CoreInfo("qemu", "a package", Manual))
    accused = wrong("unicorn", "rbx")
    explanation = explain(build(CASE), accused)
    assert explanation is not None
    told: set[int] = set()

    verdict = ballot("unicorn", explanation.signature.text).run([Manual("qemu"), accused], lambda number, place: told.add(place))

    assert verdict.verdict == Verdict.ENGINE_DEFECT
    assert [vote.engine for vote in verdict.votes] == ["unicorn", "qemu"]
    assert told == {0, 1}


def test_an_engine_that_does_not_survive_the_ballot_has_no_vote(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CORES, "qemu", CoreInfo("qemu", "a package", Manual))
    accused = wrong("unicorn", "rbx")
    explanation = explain(build(CASE), accused)
    assert explanation is not None
    work = ballot("unicorn", explanation.signature.text).without(0, 0, End.CORE_CRASHED)

    verdict = work.run([Manual("qemu"), accused], lambda number, place: None)

    assert {vote.engine: vote.stance for vote in verdict.votes}["qemu"] == Stance.SILENT
    assert verdict.verdict == Verdict.UNHEARD
