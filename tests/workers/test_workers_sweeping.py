"""A sweep finds the same in any number of processes, goes on where it was interrupted, and survives its engine."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import workers.pool
from db.engine import open_database
from db.sweep_records import SweptPath
from db.sweeps import swept_paths
from fuzzer.cores.registry import CORES, CoreInfo
from fuzzer.cores.unicorn.core import UnicornCore
from reference.image import End
from workers.paths import PathWork
from workers.sweeping import Digests, SweepProgress, SweepSettings, run_sweep, start_image

HERE = Path(__file__).parent
SCENARIOS = ("int3-from-user", "nmi-from-user", "system-call-from-user")


def settings(database: Path, **changes: object) -> SweepSettings:
    fields = {
        "target": "linux4", "scenarios": SCENARIOS, "profiles": ("intel",), "kinds": ("nmi", "mce"), "second": ("nmi",), "depth": 1,
        "core": "unicorn", "jobs": 1, "database": str(database),
    }  # fmt: skip
    return SweepSettings(**fields | changes)  # type: ignore[arg-type]


def stored(database: Path, sweep_id: int) -> list[SweptPath]:
    engine = open_database(str(database))
    try:
        return [replace(path, seconds=0.0) for path in swept_paths(engine, sweep_id)]
    finally:
        engine.dispose()


def test_two_processes_store_what_one_stores(tmp_path: Path) -> None:
    one = run_sweep(settings(tmp_path / "one.db"))
    two = run_sweep(settings(tmp_path / "two.db", jobs=2))

    assert stored(tmp_path / "one.db", one.sweep_id) == stored(tmp_path / "two.db", two.sweep_id)
    assert [(row.id, row.hits) for row in one.buckets] == [(row.id, row.hits) for row in two.buckets]
    assert one.totals.paths == 3


def test_an_interrupted_sweep_goes_on_where_it_was(tmp_path: Path) -> None:
    def interrupt(progress: SweepProgress) -> None:
        if progress.totals.paths == 1:
            raise KeyboardInterrupt

    whole = run_sweep(settings(tmp_path / "whole.db"))
    with pytest.raises(KeyboardInterrupt):
        run_sweep(settings(tmp_path / "parts.db"), interrupt)
    rest = run_sweep(settings(tmp_path / "parts.db"))

    assert (rest.sweep_id, rest.resumed) == (1, 1)
    assert rest.totals == whole.totals
    assert stored(tmp_path / "parts.db", 1) == stored(tmp_path / "whole.db", 1)


def test_other_options_are_another_sweep(tmp_path: Path) -> None:
    one = run_sweep(settings(tmp_path / "x.db", scenarios=SCENARIOS[:1]))
    two = run_sweep(settings(tmp_path / "x.db", scenarios=SCENARIOS[:1], kinds=("nmi",)))

    assert two.sweep_id != one.sweep_id
    assert two.resumed == 0


def test_progress_starts_with_nothing_and_ends_with_all(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []

    run_sweep(settings(tmp_path / "x.db", kinds=("nmi",)), lambda progress: told.append((progress.totals.paths, progress.of)))

    assert told == [(0, 3), (1, 3), (2, 3), (3, 3)]


def work(**changes: object) -> PathWork:
    fields = {
        "number": 4, "target": "linux4", "scenario": "nmi-from-user", "profile": "intel", "start": "ab", "kinds": ("nmi",),
        "second": ("nmi",), "depth": 1,
    }  # fmt: skip
    return PathWork(**fields | changes)  # type: ignore[arg-type]


def ignore(number: int, place: int) -> None:
    pass


def test_a_piece_of_work_tells_each_case_before_the_engine_runs_it() -> None:
    told: list[int] = []

    result = work().run([UnicornCore()], lambda number, place: told.append(number))

    assert [number for number in told if number >= 0] == list(range(result.path.runs))
    assert told[1::2] == [-1] * result.path.runs, "between cases the engine has nothing to do, and cannot hang"


@pytest.mark.parametrize(("end", "kind"), [(End.CORE_CRASHED, "crash"), (End.CORE_HUNG, "hang")])
def test_a_case_that_the_engine_did_not_survive_is_a_finding_and_the_sweep_goes_on(end: End, kind: str) -> None:
    clean = work().run([UnicornCore()], ignore)

    result = work().without(3, 0, end).run([UnicornCore()], ignore)

    assert result.found.crashes == 1
    assert [finding.bucket.kind for finding in result.found.findings] == [kind]
    assert (result.path.runs, result.path.divergences) == (clean.path.runs, clean.path.divergences + 1)
    assert result.path.cells["nmi"].count("x") == 1


@pytest.fixture
def fragile(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a core that kills its process on the cases with an event at one boundary."""
    monkeypatch.syspath_prepend(str(HERE))
    helper = importlib.import_module("fragile_core")
    monkeypatch.setattr(workers.pool, "serve", helper.serve)
    monkeypatch.setitem(CORES, helper.NAME, CoreInfo(helper.NAME, "unicorn", helper.FragileCore))
    return str(helper.NAME)


def test_a_process_that_dies_costs_one_case(tmp_path: Path, fragile: str) -> None:
    result = run_sweep(settings(tmp_path / "x.db", scenarios=SCENARIOS[1:2], core=fragile))

    (path,) = stored(tmp_path / "x.db", result.sweep_id)
    assert result.crashes == 2, "one for each kind of event"
    assert [bucket.kind for bucket in result.buckets] == ["crash"]
    assert [kind[7] for kind in path.cells.values()] == ["x", "x"]
    assert path.divergences == 2


def changed(change: Callable[[dict[str, int]], None]) -> str:
    image = start_image("linux4", "nmi-from-user", "intel")
    registers = dict(image.registers)
    change(registers)
    return Digests().of(replace(image, registers=registers))


def test_the_digest_of_a_start_tells_starts_apart() -> None:
    same, other = changed(lambda registers: None), changed(lambda registers: registers.update(rax=1))

    assert same == Digests().of(start_image("linux4", "nmi-from-user", "intel"))
    assert same != other
    assert same != Digests().of(start_image("linux4", "nmi-from-user", "amd"))
