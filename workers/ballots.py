"""The vote on one bucket as a piece of work: the accused and the other engines in one process, which one of them may end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from db.vote_records import NewVerdict, VoteRecord
from fuzzer.build import build
from fuzzer.case import decode
from fuzzer.cores.core import Core
from fuzzer.cores.registry import CORES
from fuzzer.cores.silicon.core import SiliconCore
from fuzzer.verdict import Judgement, Verdict, judge
from fuzzer.vote import Poll, Stance, Vote, poll, poll_ends
from reference.image import End, Image, Observation, Step
from reference.run import run
from workers.child import NO_CASE, Starting

ONLY_CASE = 0
"""The number of the one case that a ballot is about."""


@dataclass(frozen=True, slots=True)
class Ballot:
    """A bucket to vote on by its smallest case; `lost` are the cores, by place, that do not survive it, and how."""

    number: int
    bucket_id: str
    signature: str
    core: str
    by: str
    rule: str
    observed: str
    case_digest: str
    data: bytes
    lost: tuple[tuple[int, End], ...] = ()

    def without(self, case: int, place: int, end: End) -> Ballot:
        """The same ballot, with the knowledge that the core of that place does not survive the case."""
        return replace(self, lost=(*self.lost, (place, end)))

    def run(self, cores: Sequence[Core], starting: Starting) -> NewVerdict:
        """The verdict."""
        lost = {cores[place].name: end for place, end in self.lost}
        polled = self._polled(cores, lost, starting)
        starting(NO_CASE, 0)
        judged = self._judged(polled)
        votes = [VoteRecord(vote.engine, vote.version, vote.stance.value, vote.outcome) for vote in polled.votes]
        return NewVerdict(self.bucket_id, judged.verdict, judged.why, polled.expected, self.case_digest, votes)

    def _polled(self, cores: Sequence[Core], lost: dict[str, End], starting: Starting) -> Poll:
        image = build(decode(self.data))
        places = {core.name: place for place, core in enumerate(cores)}
        accused = cores[places[self.core]]
        others = [_told(core, place, starting) for place, core in enumerate(cores) if core.name not in (self.core, *lost)]
        if self.core in lost:
            observed = Observation(lost[self.core], detail="the engine's process was lost")
            polled = poll_ends(image, run(image), accused.name, accused.version, observed, others)
        else:
            polled = poll(image, self.signature, _Told(accused, places[self.core], starting), others)
        silent = [Vote(name, cores[places[name]].version, Stance.SILENT, end.value) for name, end in lost.items() if name != self.core]
        return replace(polled, votes=(*polled.votes, *silent))

    def _judged(self, polled: Poll) -> Judgement:
        if not polled.seen:
            return Judgement(Verdict.NOT_SEEN, f"{self.core} {polled.votes[0].version} no longer differs from the specification")
        families = {name: info.family for name, info in CORES.items()}
        return judge(polled.votes, self.by, families, self.rule, self.observed)


def _told(core: Core, place: int, starting: Starting) -> Core:
    """The core, telling when it begins; the processor outlives whatever it is asked, and is asked in its own way."""
    return core if isinstance(core, SiliconCore) else _Told(core, place, starting)


class _Told:
    """A core that says when its engine begins, so that it is known whose process was lost."""

    def __init__(self, core: Core, place: int, starting: Starting) -> None:
        self.name, self.version, self.delivers_events = core.name, core.version, core.delivers_events
        self._core, self._place, self._starting = core, place, starting

    def run(self, images: Sequence[Image]) -> Iterator[Observation]:
        """Run each image."""
        self._starting(ONLY_CASE, self._place)
        yield from self._core.run(images)

    def trace(self, image: Image) -> Iterator[Step]:
        """Run an image in steps."""
        self._starting(ONLY_CASE, self._place)
        yield from self._core.trace(image)
