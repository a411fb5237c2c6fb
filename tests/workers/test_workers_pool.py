"""A process that dies or hangs costs one case, which is known, and not the campaign."""

from __future__ import annotations

import importlib
import os
import signal
from pathlib import Path

import pytest

import workers.pool
from fuzzer.cores.core import CoreError
from reference.image import End
from workers.pool import Pool
from workers.slices import Slice

HERE = Path(__file__).parent


@pytest.fixture
def dying(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a core that the spawned processes know as well: they import this file's helper first."""
    monkeypatch.syspath_prepend(str(HERE))
    monkeypatch.setattr(workers.pool, "serve", importlib.import_module("dying_core").serve)
    return "dying"


@pytest.mark.parametrize(
    ("death", "end", "kind"), [("crash", End.CORE_CRASHED, "crash"), ("hang", End.CORE_HUNG, "hang")], ids=["crash", "hang"]
)
def test_the_case_that_took_the_process_is_stored_and_the_slice_goes_on(
    monkeypatch: pytest.MonkeyPatch, dying: str, death: str, end: End, kind: str
) -> None:
    monkeypatch.setenv("ENTRYFUZZ_TEST_DEATH", death)
    monkeypatch.setattr(workers.pool, "HANG_SECONDS", 3.0)
    work = Slice(0, "snippets", ("intel",), 3, 0, 8)

    with Pool(1, [dying]) as pool:
        (result,) = pool.run(iter([work]))

    lost = [finding for finding in result.findings if finding.bucket.kind == kind]
    assert result.cases == 8
    assert result.crashes >= 1
    assert [finding.observed["end"] for finding in lost][:1] == [end.value]


def test_a_process_that_somebody_killed_is_no_finding(monkeypatch: pytest.MonkeyPatch, dying: str, tmp_path: Path) -> None:
    monkeypatch.setenv("ENTRYFUZZ_TEST_DEATH", "kill once")
    monkeypatch.setenv("ENTRYFUZZ_TEST_DEATH_MARK", str(tmp_path / "mark"))
    work = Slice(0, "snippets", ("intel",), 3, 0, 8)

    with Pool(1, [dying]) as pool:
        (result,) = pool.run(iter([work]))
    with Pool(1, ["unicorn"]) as pool:
        (undisturbed,) = pool.run(iter([work]))

    assert (tmp_path / "mark").exists()
    assert (result.crashes, result.hits, result.findings) == (0, undisturbed.hits, undisturbed.findings)


def test_a_case_in_which_the_process_is_killed_each_time_is_a_finding(monkeypatch: pytest.MonkeyPatch, dying: str) -> None:
    monkeypatch.setenv("ENTRYFUZZ_TEST_DEATH", "kill")

    with Pool(1, [dying]) as pool:
        (result,) = pool.run(iter([Slice(0, "snippets", ("intel",), 3, 0, 8)]))

    assert result.cases == 8
    assert "crash" in {finding.bucket.kind for finding in result.findings}


def test_a_process_that_is_killed_again_and_again_outside_any_case_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers.pool, "serve", die)

    with Pool(1, ["unicorn"]) as pool, pytest.raises(CoreError, match="outside any case"):
        list(pool.run(iter([Slice(0, "snippets", ("intel",), 3, 0, 8)])))


def die(*arguments: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_somebody_may_look_after_other_things_meanwhile() -> None:
    ticks: list[int] = []

    with Pool(1, ["unicorn"]) as pool:
        list(pool.run(iter([Slice(0, "snippets", ("intel",), 3, 0, 10)]), lambda: ticks.append(1)))

    assert ticks


def test_an_error_of_the_adapter_is_no_finding(monkeypatch: pytest.MonkeyPatch, dying: str) -> None:
    monkeypatch.setenv("ENTRYFUZZ_TEST_DEATH", "error")

    with Pool(1, [dying]) as pool:
        (result,) = pool.run(iter([Slice(0, "snippets", ("intel",), 3, 0, 8)]))

    assert (result.cases, result.crashes) == (8, 0)
    assert result.not_modelled["unicorn: the adapter failed"] >= 1


def test_slices_of_two_processes_all_come_back() -> None:
    slices = [Slice(number, "snippets", ("intel",), 3, number * 10, 10) for number in range(5)]

    with Pool(2, ["unicorn"]) as pool:
        results = list(pool.run(iter(slices)))

    assert sorted(result.number for result in results) == [0, 1, 2, 3, 4]
