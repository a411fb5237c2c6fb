"""Engines vote on the step at which one of them parts: those that agree up to there, and those that are asked from there on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
from fuzzer_builders import snippet
from fuzzer_wrong_cores import Moment, WrongCore

from fuzzer.alignment import by_boundary
from fuzzer.build import build
from fuzzer.case import encode
from fuzzer.cores.registry import CORES, CoreInfo
from fuzzer.cores.unicorn.core import UnicornCore
from fuzzer.explain import explain
from fuzzer.targets.layout import KERNEL_CODE
from fuzzer.verdict import Verdict
from fuzzer.vote import Poll, Stance, poll, poll_ends
from reference.faults import Vector
from reference.image import REGISTERS, Delivery, End, Image, Observation, Step
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


# data16 ret far, its first word half below the canonical hole's end: #SS(0), whatever stands behind the hole
STRADDLING = snippet("66cb", rsp=0xFFFF_7FFF_FFFF_FFFF)


class Dying(Manual):
    """The specification, whose engine is lost in the third instruction."""

    def trace(self, image: Image) -> Iterator[Step]:
        for step in super().trace(image):
            yield replace(step, end=End.CORE_CRASHED) if step.retired == 3 else step


def test_an_engine_that_is_lost_in_the_step_cannot_say() -> None:
    found = poll(build(CASE), "", wrong("accused", "rcx"), [Dying("dying"), Manual()])

    assert stances(found) == {"dying": Stance.SILENT, "manual": Stance.SPECIFICATION}


class Showing(Manual):
    """The specification, but for its last step: an exception with CR2 and the handler that it enters, or completion with RIP."""

    def __init__(self, name: str, raised: str = "", **registers: int) -> None:
        super().__init__(name)
        self._raised, self._registers = raised, registers

    def trace(self, image: Image) -> Iterator[Step]:
        *before, last = super().trace(image)
        yield from before
        registers = tuple((dict(zip(REGISTERS, last.registers, strict=True)) | self._registers)[name] for name in REGISTERS)
        code = int(self._raised[4:-1], 16) if self._raised else None
        delivered = (Delivery(0, Vector.PF, code, KERNEL_CODE.start, 0),) if self._raised else ()
        yield replace(last, registers=registers, raised=self._raised, delivered=delivered)


@pytest.mark.parametrize(
    ("accused", "other", "stance"),
    [
        pytest.param(("#PF(0x0)", {"cr2": 8}), ("#PF(0x0)", {"cr2": 8}), Stance.ACCUSED, id="the-same-page-fault"),
        pytest.param(("#PF(0x0)", {"cr2": 8}), ("#PF(0x0)", {"cr2": 9}), Stance.NEITHER, id="a-page-fault-of-another-address"),
        pytest.param(("#PF(0x0)", {"cr2": 8}), ("#PF(0x4)", {"cr2": 8, "rsp": 9}), Stance.NEITHER, id="a-page-fault-of-another-access"),
        pytest.param(("", {"rip": 8, "rsp": 8}), ("", {"rip": 8, "rsp": 8}), Stance.ACCUSED, id="both-go-on-at-one-place"),
        pytest.param(("", {"rip": 8, "rsp": 8}), ("", {"rip": 9, "rsp": 8}), Stance.NEITHER, id="both-go-on-but-elsewhere"),
        pytest.param(("", {"rip": 8, "rsp": 8}), ("", {"rip": 8, "rsp": 9}), Stance.NEITHER, id="both-go-on-but-on-another-stack"),
    ],
)
def test_engines_that_are_wrong_in_different_ways_do_not_agree(
    accused: tuple[str, dict[str, int]], other: tuple[str, dict[str, int]], stance: Stance
) -> None:
    image = build(STRADDLING)

    found = poll(image, "", Showing("accused", accused[0], **accused[1]), [Showing("other", other[0], **other[1]), Manual()])

    assert found.expected == "#SS(0)"
    assert stances(found) == {"other": stance, "manual": Stance.SPECIFICATION}


SECOND_WORD = 0xFFFF_8000_0000_0001
"""Where the far return has its CS, on a page that is not there."""


@pytest.mark.parametrize(
    ("accused", "stance"),
    [
        pytest.param(0xFFFF_FFFF, Stance.SPECIFICATION, id="the-accused-reads-where-no-word-is"),
        pytest.param(SECOND_WORD, Stance.ACCUSED, id="the-accused-does-the-same"),
    ],
)
def test_a_fault_in_an_order_that_the_manual_leaves_open_is_with_the_specification(accused: int, stance: Stance) -> None:
    """SDM Vol. 3A, 7.9: which of the faults of one instruction comes first may vary from processor to processor."""
    other = Showing("other", "#PF(0x0)", cr2=SECOND_WORD)

    found = poll(build(STRADDLING), "", Showing("accused", "#PF(0x0)", cr2=accused), [other])

    assert found.expected == "#SS(0)"
    assert stances(found) == {"other": stance}


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
