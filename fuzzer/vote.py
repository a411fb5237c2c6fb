"""Who is right: the step at which an accused core parts from the specification, shown to other engines.

Each engine runs the case itself. One that agrees with the specification up to that step has a vote on it; one that parts earlier is
asked again from the state right before the step, as a machine of its own, if the accused still parts there in the same way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from fuzzer.alignment import by_boundary, joined
from fuzzer.compare import INCOMPARABLE, Difference, compare
from fuzzer.cores.core import Core
from fuzzer.cores.silicon.core import SiliconCore
from fuzzer.cores.silicon.tolerances import FAULT_ORDER
from fuzzer.explain import explain, step_differences
from fuzzer.fault_order import Kept, possible_faults
from fuzzer.outcome import CRASHES, outcome
from fuzzer.silicon import Verdict as Answered
from fuzzer.silicon import ask
from reference.faults import Vector
from reference.image import REGISTER_INDEX, REGISTERS, End, Image, Observation, Step
from reference.run import run
from reference.trace import trace


class Stance(StrEnum):
    """On whose side an engine is."""

    SPECIFICATION = "with the specification"
    ACCUSED = "with the accused"
    NEITHER = "with neither"
    EARLIER = "parts earlier"
    SILENT = "cannot say"


HEARD = frozenset({Stance.SPECIFICATION, Stance.ACCUSED, Stance.NEITHER})
"""Stances that are about the step itself."""


@dataclass(frozen=True, slots=True)
class Vote:
    """What one engine did; `outcome` in the words of signatures, `camp` equal for engines of one case that did the same."""

    engine: str
    version: str
    stance: Stance
    outcome: str
    camp: int = -1


@dataclass(frozen=True, slots=True)
class Poll:
    """All votes on one case: the accused's first. `seen` tells whether the accused still parts from the specification."""

    votes: tuple[Vote, ...]
    expected: str
    seen: bool = True


def poll(image: Image, signature: str, accused: Core, others: Sequence[Core]) -> Poll:
    """Ask every other core about the step at which `accused` parts from the specification with this signature."""
    scene = _scene(image, accused)
    if scene is None:
        return _poll_ends(image, accused, others)
    alone = _alone(image, scene, signature, accused)
    votes = []
    for core in others:
        vote = _ask(core, image, scene)
        if vote.stance not in HEARD and alone is not None:
            vote = _ask(core, *alone)
        votes.append(vote)
    own = Vote(accused.name, accused.version, Stance.ACCUSED, outcome(scene.accused), camp=0)
    expected = outcome(scene.spec[-1])
    return Poll((own, *_in_camps(votes, (expected, own.outcome))), expected)


@dataclass(frozen=True, slots=True)
class _Scene:
    """A parting: the specification's steps up to it, that one included, and what the accused shows there."""

    spec: tuple[Step, ...]
    accused: Step


def _scene(image: Image, accused: Core) -> _Scene | None:
    """The first step, from boundary to boundary, at which the accused parts; None where it does not."""
    spec: list[Step] = []
    for expected, observed in joined(by_boundary(trace(image)), by_boundary(accused.trace(image))):
        if expected.end is End.NOT_MODELLED:
            return None
        spec.append(expected)
        if step_differences(image, expected, observed):
            return _Scene(tuple(spec), observed)
    return None


def _alone(image: Image, scene: _Scene, signature: str, accused: Core) -> tuple[Image, _Scene] | None:
    """The step as a case of its own, where that shows the same: with events in flight, or hidden state, it may not."""
    if image.events or len(scene.spec) < 2:
        return None
    before = scene.spec[-2]
    registers = dict(zip(REGISTERS, before.registers, strict=True))
    cut = replace(image, registers=registers, pages={**image.pages, **before.memory})
    explanation = explain(cut, accused)
    if explanation is None or explanation.signature.text != signature or explanation.step:
        return None
    again = _scene(cut, accused)
    return (cut, again) if again is not None else None


def _ask(core: Core, image: Image, scene: _Scene) -> Vote:
    """The vote of a core on a parting."""
    if isinstance(core, SiliconCore):
        return _ask_silicon(core, image, scene)
    for expected, step in joined(iter(scene.spec), by_boundary(core.trace(image))):
        if step.end in INCOMPARABLE or step.end in CRASHES:
            return Vote(core.name, core.version, Stance.SILENT, step.detail or outcome(step))
        if expected is scene.spec[-1]:
            return Vote(core.name, core.version, _stance(image, scene, step), outcome(step))
        if step_differences(image, expected, step):
            return Vote(core.name, core.version, Stance.EARLIER, f"boundary {step.retired}: {outcome(step)}")
    return Vote(core.name, core.version, Stance.SILENT, "shows nothing of this step")


def _ask_silicon(core: SiliconCore, image: Image, scene: _Scene) -> Vote:
    """The vote of the processor, which shows the first event of user mode: on a parting that is no later than that."""
    if image.registers["cs"] & 3 != 3 or any(step.delivered for step in scene.spec[:-1]):
        return Vote(core.name, core.version, Stance.SILENT, "behind the first event of user mode")
    answer = ask(image, core)
    if answer.verdict is Answered.UNASKED:
        return Vote(core.name, core.version, Stance.SILENT, answer.detail)
    if answer.verdict is Answered.AGREES:
        return Vote(core.name, core.version, Stance.SPECIFICATION, answer.silicon)
    same = answer.silicon in (outcome(scene.accused), scene.accused.raised)
    return Vote(core.name, core.version, Stance.ACCUSED if same else Stance.NEITHER, answer.silicon)


def _stance(image: Image, scene: _Scene, step: Step) -> Stance:
    """Whose side a step is on: by what it did, or, where both sides did the same, by the fields that they dispute."""
    expected = scene.spec[-1]
    # What the manual leaves undefined there may differ between engines too.
    accused = replace(scene.accused, undefined=expected.undefined)
    for stance, side in ((Stance.SPECIFICATION, expected), (Stance.ACCUSED, accused)):
        if not step_differences(image, side, step):
            return stance
    if _is_open(image, scene, step):
        return Stance.SPECIFICATION
    if outcome(expected) != outcome(accused):
        for stance, side in ((Stance.SPECIFICATION, expected), (Stance.ACCUSED, accused)):
            if outcome(step) == outcome(side) and _place(step) == _place(side):
                return stance
        return _by_handler(expected, accused, step)
    disputed = _fields(step_differences(image, expected, accused))
    if not disputed & _fields(step_differences(image, expected, step)):
        return Stance.SPECIFICATION
    return Stance.NEITHER if disputed & _fields(step_differences(image, accused, step)) else Stance.ACCUSED


def _is_open(image: Image, scene: _Scene, step: Step) -> bool:
    """Whether a step raises another fault of the same instruction, in an order that the manual leaves open; the accused's is none such."""
    seen = _entered(step)
    if seen is None or not scene.spec[-1].raised or len(scene.spec) < 2:
        return False
    possible = possible_faults(image, scene.spec[-2].retired)
    return possible.get(seen) is FAULT_ORDER and _entered(scene.accused) not in possible


def _place(step: Step) -> tuple[int, ...]:
    """What tells apart two steps of one outcome: the address that a page fault is about; where, and on which stack, execution goes on."""
    if step.raised.startswith("#PF"):
        return (step.registers[REGISTER_INDEX["cr2"]],)
    if outcome(step) == "completes":
        return tuple(step.registers[REGISTER_INDEX[name]] for name in ("cs", "rip", "ss", "rsp"))
    return ()


def _by_handler(expected: Step, accused: Step, step: Step) -> Stance:
    """The side by the handler that was entered, and what it is told: an engine that delivers events itself does not show what became
    of a double fault."""
    if _entered(expected) == _entered(accused) or not step.delivered:
        return Stance.NEITHER
    sides = {_entered(accused): Stance.ACCUSED, _entered(expected): Stance.SPECIFICATION}
    return sides.get(_entered(step), Stance.NEITHER)


def _entered(step: Step) -> Kept | None:
    """The last handler entered, with its error code and, of a page fault, the address."""
    if not step.delivered:
        return None
    last = step.delivered[-1]
    return last.vector, last.error_code, step.registers[REGISTER_INDEX["cr2"]] if last.vector == Vector.PF else None


def _fields(differences: Sequence[Difference]) -> frozenset[str]:
    return frozenset(difference.field for difference in differences)


def _in_camps(votes: Sequence[Vote], words: Sequence[str]) -> Iterator[Vote]:
    """Votes with their camps: 0 is the accused's; of those with neither side, the same outcome makes a camp, if it is a third one."""
    neither: list[str] = []
    for vote in votes:
        if vote.stance is Stance.ACCUSED:
            yield replace(vote, camp=0)
        elif vote.stance is Stance.NEITHER:
            if vote.outcome not in neither or vote.outcome in words:
                neither.append(vote.outcome)  # the same words for another state do not make a camp
            yield replace(vote, camp=len(neither) if vote.outcome in words else 1 + neither.index(vote.outcome))
        else:
            yield vote


def _poll_ends(image: Image, accused: Core, others: Sequence[Core]) -> Poll:
    """Votes by how the whole case ends, for what cannot be seen step by step."""
    spec = run(image)
    (observed,) = accused.run([image])
    return poll_ends(image, spec, accused.name, accused.version, observed, others)


def poll_ends(image: Image, spec: Observation, name: str, version: str, observed: Observation, others: Sequence[Core]) -> Poll:
    """The same where the accused itself must not run, as it did not survive the case."""
    votes = []
    for core in others:
        (other,) = core.run([image])
        votes.append(Vote(core.name, core.version, _stance_at_end(image, spec, observed, other), other.end.value))
    own = Vote(name, version, Stance.ACCUSED, observed.end.value, camp=0)
    return Poll(
        (own, *_in_camps(votes, (spec.end.value, own.outcome))), spec.end.value, seen=bool(compare(image, spec, observed).differences)
    )


def _stance_at_end(image: Image, spec: Observation, observed: Observation, other: Observation) -> Stance:
    if not compare(image, spec, other).comparable:
        return Stance.SILENT
    if not compare(image, spec, other).differences:
        return Stance.SPECIFICATION
    return Stance.ACCUSED if not compare(image, replace(observed, undefined=spec.undefined), other).differences else Stance.NEITHER
