"""A sweep with its progress on stderr, and a stored one with the code of its paths."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from entryfuzz.database import opened
from entryfuzz.disassembly import Symbols
from entryfuzz.errors import Mistake
from entryfuzz.output import console, note
from entryfuzz.path import walk
from entryfuzz.replay import find_core
from fuzzer.targets.registry import TARGETS
from reference.trace import trace

if TYPE_CHECKING:
    from db.sweep_records import SweepRow, SweptPath
    from workers.sweeping import SweepProgress, SweepSettings, SweepSummary

_SECONDS_BETWEEN_LINES = 10.0


def known_scenarios(target: str, wanted: Sequence[str]) -> tuple[str, ...]:
    """The scenarios of a target that are asked for, in its order; Mistake where one is not there."""
    names = [scenario.name for scenario in TARGETS[target].scenarios]
    for name in wanted:
        if name not in names:
            raise Mistake(f'there is no scenario "{name}" in {target}; see entryfuzz targets show {target}')
    return tuple(name for name in names if name in wanted or not wanted)


def sweep_with_progress(settings: SweepSettings) -> SweepSummary:
    """Run a sweep to its end, telling how it goes."""
    from workers.sweeping import run_sweep

    find_core(settings.core)
    paths = len(settings.scenarios) * len(settings.profiles)
    note(f"sweeping {paths} paths of {settings.target} on {settings.core} with {', '.join(settings.kinds)}, results in {settings.database}")
    if not sys.stderr.isatty():
        return run_sweep(settings, _Lines())
    with _bar(paths) as show:
        return run_sweep(settings, show)


@contextmanager
def _bar(paths: int) -> Iterator[_Bar]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("paths  {task.description}"), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console(error=True)) as progress:
        task = progress.add_task("starting", total=paths)
        yield lambda state: progress.update(task, completed=state.totals.paths, description=_counts(state))


if TYPE_CHECKING:
    from collections.abc import Callable

    _Bar = Callable[[SweepProgress], None]


def _counts(state: SweepProgress) -> str:
    each = state.totals
    return f"{each.runs:,} runs  {each.contract_violations:,} break the contract  {each.divergences:,} diverge"


class _Lines:
    """Progress for a log: at most one line in ten seconds."""

    def __init__(self) -> None:
        self._next = time.monotonic() + _SECONDS_BETWEEN_LINES

    def __call__(self, state: SweepProgress) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _SECONDS_BETWEEN_LINES
            note(f"{state.totals.paths} of {state.of} paths  {_counts(state)}  {state.seconds:.0f} s")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a boundary is: the instruction that comes next."""

    address: int
    name: str
    text: str


@dataclass(frozen=True, slots=True)
class ShownSweep:
    """A stored sweep, the paths that were asked for."""

    sweep: SweepRow
    swept: Sequence[SweptPath]

    @property
    def target(self) -> str:
        """The target that was swept."""
        return self.sweep.campaign.targets[0]


def find_sweep(sweep_id: int | None, scenario: str | None, profile: str | None, database: str) -> ShownSweep:
    """A sweep of the database by its number, or the newest, with the paths that fit."""
    from db import sweeps

    with opened(database) as engine:
        row = sweeps.sweep(engine, sweep_id)
        if row is None:
            which = "no sweep" if sweep_id is None else f"no sweep {sweep_id}"
            raise Mistake(f"{database}: there is {which}; run entryfuzz sweep --db {database}")
        swept = sweeps.swept_paths(engine, row.id, scenario=scenario, profile=profile)
    if not swept:
        wanted = " on ".join(filter(None, (scenario, profile))) or "anything"
        raise Mistake(f"sweep {row.id}: {wanted} has not been swept; see entryfuzz sweep show {row.id} --db {database}")
    return ShownSweep(row, swept)


def places(target: str, path: SweptPath) -> list[Place]:
    """The instruction at each boundary of a path; empty where the target is no longer what was swept."""
    from workers.sweeping import Digests, start_image

    known = TARGETS.get(target)
    if known is None or path.scenario not in {scenario.name for scenario in known.scenarios}:
        return []
    image = start_image(target, path.scenario, path.profile)
    if Digests().of(image) != path.start:
        return []
    symbols = Symbols(known.symbols)
    found: dict[int, Place] = {}
    for step in walk(image, trace(image), symbols):
        found.setdefault(step.before.retired, Place(step.address, symbols.name(step.address), step.text))
    return [found[boundary] for boundary in range(path.boundaries) if boundary in found]


def write_page(file: str, text: str) -> None:
    """Write a page; Mistake where that cannot be."""
    try:
        Path(file).write_text(text, encoding="utf-8")
    except OSError as error:
        raise Mistake(f"{file}: cannot be written: {error.strerror}") from None
