"""A guided slice: cases that libFuzzer proposes in a child process, what they show, and those that are worth keeping."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from db.records import SliceResult
from fuzzer.build import build
from fuzzer.case import decode, encode
from fuzzer.compare import compare
from fuzzer.cores.core import Core
from fuzzer.generate.generator import generate
from fuzzer.guided import job as folder
from fuzzer.guided.job import Job, Told
from reference.image import End
from reference.run import run
from workers.child import NO_CASE, Starting
from workers.guided_child import Child, Lost, check_guidance, write_inputs
from workers.slices import Tally, Trial, note_divergence, note_lost

FRESH = 100
"""Generated cases that a slice begins with, besides those of the corpus."""
SHARE = 4
"""Of each kind at most one in so many executions: the rest is for what is new."""


@dataclass(frozen=True, slots=True)
class GuidedResult:
    """What a slice found, and the cases, as bytes, that reached something new: in the order of their bytes."""

    found: SliceResult
    target: str
    corpus: tuple[bytes, ...]

    @property
    def number(self) -> int:
        """The number of the slice."""
        return self.found.number

    @property
    def cases(self) -> int:
        """How many cases were run."""
        return self.found.cases


@dataclass(frozen=True, slots=True)
class GuidedSlice:
    """`count` executions on a target, beginning with a corpus and with generated cases from number `first` on.

    The same slice gives the same result, wherever and however often it is run. `lost` is as in `workers.slices.Slice`.
    """

    number: int
    target: str
    profiles: tuple[str, ...]
    cores: tuple[str, ...]
    seed: int
    first: int
    count: int
    corpus: tuple[bytes, ...] = ()
    lost: tuple[tuple[int, int, End], ...] = ()
    instrumented: bool = False
    counted: bool = True

    def without(self, case: int, place: int, end: End) -> GuidedSlice:
        """The same slice, with the knowledge that one case cannot be explained on the core of that place."""
        return replace(self, lost=(*self.lost, (case, place, end)))

    def run(self, cores: Sequence[Core], starting: Starting) -> GuidedResult:
        """What it finds; `cores` are engines of this process, which explain what the child's engines show."""
        starting(NO_CASE, 0)
        check_guidance()
        begun = time.monotonic()
        with TemporaryDirectory(prefix="entryfuzz-guided-") as place:
            running = _Running(self, Path(place), cores, starting, Tally())
            running.to_the_end()
            found = running.tally.result(self.number, running.done, time.monotonic() - begun)
            return GuidedResult(found, self.target, running.kept())

    def inputs(self) -> list[bytes]:
        """What it begins with: some of the corpus, chosen by the seed, and fresh cases."""
        most = max(1, self.count // SHARE)
        chosen = Random(f"{self.seed}/{self.number}").sample(self.corpus, min(len(self.corpus), most))
        fresh = range(self.first, self.first + min(FRESH, most))
        return [*sorted(chosen), *(encode(generate(self.seed, self.target, self.profiles, number)) for number in fresh)]


def plan_guided(
    targets: Sequence[str], profiles: tuple[str, ...], cores: tuple[str, ...], seed: int, size: int, cases: int | None, number: int
) -> GuidedSlice | None:
    """Slice `number` of a campaign of so many cases, or of an endless one: targets take turns, each slice has fresh cases of its own.

    It has no corpus yet; None if it comes after the end.
    """
    count = size if cases is None else min(size, cases - number * size)
    if count <= 0:
        return None
    return GuidedSlice(number, targets[number % len(targets)], profiles, cores, seed, number // len(targets) * FRESH, count)


@dataclass(slots=True)
class _Running:
    """A guided slice on its way, through as many children as it takes."""

    work: GuidedSlice
    place: Path
    cores: Sequence[Core]
    starting: Starting
    tally: Tally
    done: int = 0
    avoided: tuple[str, ...] = ()

    def to_the_end(self) -> None:
        """Do all executions; one that takes a child with it is counted, and the next child begins with all that is known."""
        for name in (folder.INPUTS, folder.FOUND):
            (self.place / name).mkdir()
        write_inputs(self.place / folder.INPUTS, self.work.inputs())
        while self.done < self.work.count:
            lost = self._one_child()
            if lost is None:
                self.done = self.work.count
                return
            self.done = lost.number + 1
            self.avoided = (*self.avoided, decode(lost.data).digest)
            for path in (self.place / folder.FOUND).iterdir():
                shutil.copy(path, self.place / folder.INPUTS)

    def _one_child(self) -> Lost | None:
        with Child(*self._job()) as child:
            for told in child:
                self._note(told)
                self.starting(NO_CASE, 0)
            lost = child.lost
        if lost is not None:
            case = decode(lost.data)
            image = build(case)
            note_lost(Trial(lost.number, case, image, run(image)), self.cores[lost.core], self.tally, lost.end)
        return lost

    def _job(self) -> tuple[Job, int]:
        """The job of the next child, and the end of its pipe to read from."""
        reading, writing = os.pipe()
        work = self.work
        seed = Random(f"{work.seed}/{work.target}/{work.number}/{self.done}").getrandbits(32)
        left = work.count - self.done
        job = Job(
            folder=str(self.place),
            target=work.target,
            profiles=work.profiles,
            cores=work.cores,
            seed=seed,
            first=self.done,
            executions=left,
            pipe=writing,
            parent=os.getpid(),
            instrumented=work.instrumented,
            counted=work.counted,
            avoided=self.avoided,
        )
        return job, reading

    def _note(self, told: Told) -> None:
        self.tally.not_modelled.update((told.not_modelled,) if told.not_modelled else ())
        self.tally.tolerated.update(told.tolerated)
        if told.divergent:
            self._explain(told)

    def _explain(self, told: Told) -> None:
        """Run a case that diverged in the child again, here, and say why."""
        self.starting(told.number, told.core)
        case, core = decode(bytes.fromhex(told.divergent)), self.cores[told.core]
        image = build(case)
        trial = Trial(told.number, case, image, run(image))
        lost = {number: end for number, place, end in self.work.lost if place == told.core}
        if told.number in lost:
            note_lost(trial, core, self.tally, lost[told.number])
            return
        observation = next(iter(core.run([image])))
        comparison = compare(image, trial.spec, observation)
        if comparison.differences:
            note_divergence(trial, core, self.tally, observation, comparison)
        else:
            self.tally.not_modelled[f"{core.name}: differed once, and not again"] += 1

    def kept(self) -> tuple[bytes, ...]:
        """What reached something new; among it are the fresh cases that did, and none of the corpus that it began with."""
        return tuple(sorted(set(self._found()) - set(self.work.corpus)))

    def _found(self) -> Iterator[bytes]:
        for path in (self.place / folder.FOUND).iterdir():
            yield encode(decode(path.read_bytes()))
