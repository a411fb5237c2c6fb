"""The guided run itself: libFuzzer proposes cases, each runs on the specification and on the cores, and nothing stops at a difference."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

from fuzzer.build import build
from fuzzer.case import Case
from fuzzer.compare import compare
from fuzzer.cores.core import Core
from fuzzer.cores.registry import load
from fuzzer.guided import job as folder
from fuzzer.guided.counters import Counters
from fuzzer.guided.job import LONGEST, OURS_IS_WRONG, Current, Job, Told
from fuzzer.guided.mutate import crossed, fitting, mutated
from fuzzer.guided.scope import Scope
from fuzzer.guided.semantics import parting, run_noting
from reference.image import End, Image, Observation

MOST_QUESTIONS: Final = 20
"""Times the executions of a job: where there are hardly any new cases, a run ends all the same."""


class Loop:
    """One guided run; `run` does not come back."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._scope = Scope(job.target, job.profiles)
        self._cores: Sequence[Core] = [load(name) for name in job.cores]
        self._current = Current(Path(job.folder) / folder.CURRENT)
        self._avoided = frozenset(job.avoided)
        self._done = self._asked = 0
        self._seen: set[Case] = set()
        self._counters: Counters | None = None

    def run(self, atheris: Any, arguments: Sequence[str] = ()) -> NoReturn:
        """Run all executions and leave the process: libFuzzer would not let anybody clean up behind it.

        With `arguments` of libFuzzer's own it does what they say with these cases and counters.
        """
        scope = self._scope
        atheris.Setup(
            [sys.argv[0], *(arguments or self._arguments())],
            self._one,
            custom_mutator=lambda data, size, seed: mutated(data, size, seed, scope),
            custom_crossover=lambda one, other, size, seed: crossed(one, other, size, seed, scope),
        )
        self._counters = Counters() if self._job.counted else None
        atheris.Fuzz()
        os._exit(OURS_IS_WRONG)

    def _arguments(self) -> list[str]:
        place = Path(self._job.folder)
        inputs = sorted(str(path) for path in (place / folder.INPUTS).iterdir())
        (place / "list").write_text(",".join(inputs), encoding="utf-8")
        return [
            str(place / folder.FOUND),
            f"-seed_inputs=@{place / 'list'}",
            f"-seed={self._job.seed % (2**32 - 1) + 1}",  # 0 means by the clock
            f"-max_len={LONGEST}",
            f"-artifact_prefix={place}/",
            # The same executions from the same seed, and cases of full length from the start.
            *("-entropic=0", "-reload=0", "-len_control=0", "-mutate_depth=1"),
            # The parent watches time and memory, and takes a signal for what it is. Of a timeout of 0, atheris makes one of a second.
            *("-timeout=1000000", "-rss_limit_mb=0", "-malloc_limit_mb=0", "-detect_leaks=0", "-verbosity=0"),
            *(f"-handle_{name}=0" for name in ("segv", "bus", "abrt", "ill", "fpe", "int", "term", "xfsz", "usr1", "usr2")),
        ]

    def _one(self, data: bytes) -> None:
        self._asked += 1
        case = self._scope.read(data)
        if not data or case in self._seen:  # libFuzzer's own first question, or one that was answered
            if self._asked > MOST_QUESTIONS * self._job.executions:
                os._exit(0)
            return
        self._seen.add(case)
        try:
            self._run_case(case)
        except BaseException:
            traceback.print_exc()
            os._exit(OURS_IS_WRONG)
        self._done += 1
        if self._done >= self._job.executions:
            os._exit(0)

    def _run_case(self, case: Case) -> None:
        number, data, image = self._job.first + self._done, fitting(case, LONGEST), build(case)
        if self._avoided and case.digest in self._avoided:
            return
        self._current.set(number, -1, data)
        noted: set[int] = set()
        spec = run_noting(image, noted)
        if spec.end is End.NOT_MODELLED:
            self._tell(Told(number, not_modelled=spec.detail))
        else:
            for place, core in enumerate(self._cores):
                self._current.set(number, place, data)
                self._compare(number, place, image, spec, next(iter(core.run([image]))), data, noted)
        self._current.clear()
        if self._counters is not None:
            self._counters.count(noted)

    def _compare(self, number: int, place: int, image: Image, spec: Observation, seen: Observation, data: bytes, noted: set[int]) -> None:
        comparison = compare(image, spec, seen)
        why = f"{self._cores[place].name}: {seen.detail}" if seen.end is End.UNSUPPORTED else ""
        if comparison.differences:
            noted.add(parting(place, comparison.differences, _way(spec)))
        if why or comparison.tolerated or comparison.differences:
            self._tell(Told(number, why, comparison.tolerated, place, data.hex() if comparison.differences else ""))

    def _tell(self, told: Told) -> None:
        line = told.line()
        while line:
            line = line[os.write(self._job.pipe, line) :]


def _way(spec: Observation) -> str:
    """How a run ended, and through which handlers: a difference behind another one is another difference."""
    return " ".join((spec.end.value, *_vectors(spec)))


def _vectors(spec: Observation) -> Iterable[str]:
    return (str(min(entry.vector, 32)) for entry in spec.deliveries[:2])
