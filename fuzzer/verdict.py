"""From votes to a verdict: who is wrong, and why that is believed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from fuzzer.settled import settled
from fuzzer.vote import HEARD, Stance, Vote

SILICON = "silicon"


class Verdict(StrEnum):
    """Who is wrong."""

    ENGINE_DEFECT = "engine-defect"
    """Silicon says so, or the specification and another engine agree, or engines share a defect that the manual's sentence settles."""
    SPEC_SUSPECT = "spec-suspect"
    """Engines of different origin agree with each other against the specification."""
    DISPUTED = "disputed"
    """They all differ."""
    ADAPTER = "adapter"
    """It is what our adapter does in the engine's place, and no engine that does it itself agrees with that."""
    UNHEARD = "unheard"
    """No other engine could be asked about this step; nothing but the manual speaks for the specification."""
    NOT_SEEN = "not-seen"
    """The accused no longer differs from the specification."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict with its reason, in one line."""

    verdict: Verdict
    why: str


def judge(votes: Sequence[Vote], by: str, families: Mapping[str, str], rule: str, observed: str) -> Judgement:
    """The verdict on a bucket from its votes, the accused's first; `families` names the origin of each engine."""
    accused, others = votes[0], [vote for vote in votes[1:] if vote.stance in HEARD]
    independent = [vote for vote in others if families[vote.engine] != families[accused.engine]]
    for_it = [vote.engine for vote in others if vote.stance is Stance.SPECIFICATION]
    silicon = next((vote for vote in others if vote.engine == SILICON), None)
    if silicon is not None and silicon.stance is Stance.SPECIFICATION:
        return Judgement(Verdict.ENGINE_DEFECT, "the processor does what the specification says")
    against = _agreeing(accused, [vote for vote in others if vote.stance is not Stance.SPECIFICATION], families)
    if by == "adapter" and not any(vote.stance is Stance.ACCUSED for vote in independent):
        return Judgement(Verdict.ADAPTER, "our adapter does this step in the engine's place")
    if for_it and (silicon is None or silicon.stance is Stance.SPECIFICATION):
        return Judgement(Verdict.ENGINE_DEFECT, f"{_named(for_it)} {'do' if len(for_it) > 1 else 'does'} what the specification says")
    if against or silicon is not None:
        sentence = settled(rule, observed)
        who = _named(against or [SILICON])
        if sentence:
            return Judgement(Verdict.ENGINE_DEFECT, f"a defect that {who} share: {sentence}")
        return Judgement(Verdict.SPEC_SUSPECT, f"{who} agree against the specification")
    if others:
        return Judgement(Verdict.DISPUTED, _dispute(accused, others))
    return Judgement(Verdict.UNHEARD, "no other engine could be asked about this step")


def _dispute(accused: Vote, others: Sequence[Vote]) -> str:
    """Who stands where when nobody is with the specification, and nobody of another origin with the accused."""
    relatives = [vote.engine for vote in others if vote.stance is Stance.ACCUSED]
    apart = [vote.engine for vote in others if vote.stance is Stance.NEITHER]
    return "; ".join(
        filter(
            None,
            (
                f"{_named(apart)}: otherwise than either side" if apart else "",
                f"{_named(relatives)}: as {accused.engine}, of one origin with it" if relatives else "",
            ),
        )
    )


def _agreeing(accused: Vote, others: Sequence[Vote], families: Mapping[str, str]) -> list[str]:
    """The engines of the largest camp against the specification that has two origins or more; nobody where there is none."""
    camps: dict[int, list[str]] = {}
    for vote in (accused, *others):
        camps.setdefault(vote.camp, []).append(vote.engine)
    broad = [names for names in camps.values() if len({families[name] for name in names}) > 1]
    return max(broad, key=len, default=[])


def _named(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
