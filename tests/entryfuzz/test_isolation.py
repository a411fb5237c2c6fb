"""An engine that crashes or hangs is an observation, also for a single case."""

import os
import signal
import time
from collections.abc import Iterator, Sequence

import pytest

from entryfuzz.isolation import Lost, results
from entryfuzz.replay import CoreRun, replay
from fuzzer.case import Case
from fuzzer.cores.core import CoreError
from fuzzer.cores.registry import CoreInfo
from reference.image import End, Image, Observation, Step
from reference.run import run


class DyingCore:
    """A core whose engine kills its process, in a run or only in a trace."""

    name = "dying"
    version = "1"
    delivers_events = True

    def __init__(self, survives_a_run: bool) -> None:
        self._survives = survives_a_run

    def run(self, images: Sequence[Image]) -> Iterator[Observation]:
        for image in images:
            if not self._survives:
                os.kill(os.getpid(), signal.SIGKILL)
            yield run(image)

    def trace(self, image: Image) -> Iterator[Step]:
        os.kill(os.getpid(), signal.SIGKILL)
        yield from ()


def dies_in_a_run() -> DyingCore:
    return DyingCore(survives_a_run=False)


def dies_in_a_trace() -> DyingCore:
    return DyingCore(survives_a_run=True)


def counts(last: int) -> Iterator[int]:
    yield from range(last)


def breaks() -> Iterator[int]:
    yield 1
    raise CoreError("broke its rules")


def sleeps() -> Iterator[int]:
    yield 1
    time.sleep(60)


CASE = Case("snippets", "user", "intel")


def only_run(info: CoreInfo, paths: bool = False) -> CoreRun:
    (one,) = replay(CASE, [info], paths).runs
    return one


def test_results_come_from_another_process() -> None:
    assert list(results(counts, 3)) == [0, 1, 2]


def test_an_exception_there_is_one_here() -> None:
    with pytest.raises(CoreError, match="broke its rules"):
        list(results(breaks))


def test_silence_is_a_hang() -> None:
    waiting = results(sleeps, patience=4.0)
    next(waiting)

    with pytest.raises(Lost) as lost:
        next(waiting)

    assert lost.value.end is End.CORE_HUNG


def test_a_crash_is_an_observation_and_a_divergence() -> None:
    result = only_run(CoreInfo("dying", "unicorn", dies_in_a_run))

    assert result.observation.end is End.CORE_CRASHED
    assert "signal 9" in result.observation.detail
    assert [difference.field for difference in result.comparison.differences] == ["end"]
    assert result.signature is not None
    assert result.signature.kind == "crash"


def test_a_crash_in_the_trace_keeps_the_observation() -> None:
    result = only_run(CoreInfo("dying", "unicorn", dies_in_a_trace), paths=True)

    assert result.observation.end is End.ENDED
    assert result.path == ()
