"""The jobs of the timetable: what each plans, and which of them are due."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from sqlalchemy import Connection, Engine

from db.corpus import corpus
from db.life import replayable
from db.nightly import Begin, begin_run, has_begun
from db.nightly_records import Begun, NightlyRunRow
from db.records import NewCampaign
from db.retention import throw_away
from db.sweeps import put_sweep
from db.work import put_planned
from db.work_records import NewWork
from fuzzer.cores.registry import CORES
from fuzzer.generate.generator import GENERATORS
from fuzzer.sweep.events import KINDS
from fuzzer.sweep.sweep import SECOND
from fuzzer.targets.registry import TARGETS
from reference.profiles import PROFILES
from workers.growing import AHEAD, works_ahead
from workers.modes import GUIDED, MERGE, RANDOM, REPLAY, SWEEP, merge_arguments, replay_arguments, sweep_arguments
from workers.sweeping import SweepSettings, key_of, new_campaign, works_of
from workers.timetable import Entry, Option, number, some_of

DEFAULT_CORE = "unicorn"
_SEED_BITS = 32

Options = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Job:
    """Something to be done by itself: the options that it takes, and what prepares it; what that gives is done when a run begins."""

    options: Mapping[str, Option]
    prepare: Callable[[Engine, Options], Begin]


def _sweep(engine: Engine, options: Options) -> Begin:
    """A sweep of each target on each core, whole."""
    parts = []
    for target in options["targets"] or TARGETS:
        for core in options["cores"]:
            settings = _sweep_settings(target, core, options)
            works = list(works_of(settings))
            new = new_campaign(settings)
            new = replace(new, arguments={**new.arguments, "mode": SWEEP, "cluster": True})
            parts.append((new, key_of(settings, works), [sweep_arguments(work, core) for work in works]))

    def begin(connection: Connection, at: datetime) -> Begun:
        campaigns = []
        for new, key, works in parts:
            campaigns.append(put_planned(connection, new, works, at))
            put_sweep(connection, campaigns[-1], key, len(works))
        return Begun(campaigns)

    return begin


def _sweep_settings(target: str, core: str, options: Options) -> SweepSettings:
    return SweepSettings(
        target=target,
        scenarios=tuple(scenario.name for scenario in TARGETS[target].scenarios),
        profiles=tuple(options["profiles"] or PROFILES),
        kinds=TARGETS[target].kinds or KINDS,
        second=SECOND,
        depth=options["depth"],
        core=core,
        jobs=1,
        database="",
    )


def _fuzz(engine: Engine, options: Options, mode: str = RANDOM) -> Begin:
    """A campaign of a mode with a seed of its own, until its cases have run or its hours are over, whichever is first."""
    cases, hours = options["cases"], options["hours"]
    if cases is None and hours is None:
        hours = 1.0

    def begin(connection: Connection, at: datetime) -> Begun:
        until = None if hours is None else (at + timedelta(hours=hours)).isoformat()
        arguments = {"cases": cases, "cores": list(options["cores"]), "cluster": True, "mode": mode, "until": until}
        new = NewCampaign(
            targets=tuple(options["targets"] or GENERATORS),
            core=", ".join(options["cores"]),
            core_version=", ".join(_version(core) for core in options["cores"]),
            profiles=tuple(options["profiles"] or PROFILES),
            seed=secrets.randbits(_SEED_BITS),
            slice_cases=options["slice_cases"],
            arguments=arguments,
        )
        return Begun([put_planned(connection, new, works_ahead(new, range(AHEAD)), at)])

    return begin


def _merge(engine: Engine, options: Options) -> Begin:
    """The corpus of each target that has one made smaller, as by `entryfuzz corpus merge`."""
    cores = tuple(options["cores"])
    targets = [target for target in options["targets"] or GENERATORS if corpus(engine, target)]
    if not targets:
        return lambda connection, at: Begun(outcome="nothing to do: there is no corpus")
    new = NewCampaign(
        targets=tuple(targets),
        core=", ".join(cores),
        core_version=", ".join(_version(core) for core in cores),
        profiles=(),
        seed=0,
        slice_cases=0,
        arguments={"mode": MERGE, "cluster": True, "cores": list(cores)},
    )
    works = [merge_arguments(number, target, cores) for number, target in enumerate(targets)]
    return lambda connection, at: Begun([put_planned(connection, new, works, at)])


def _replay(engine: Engine, options: Options) -> Begin:
    """All examples of all buckets of the cores, those of one bucket together."""
    cores = options["cores"] or CORES
    works = list(_replays([row for row in replayable(engine) if row[1] in cores], options["cases"]))
    if not works:
        return lambda connection, at: Begun(outcome="nothing to do: no examples are stored")
    used = sorted({work.arguments["core"] for work in works})
    new = NewCampaign(
        targets=(),
        core=", ".join(used),
        core_version=", ".join(_version(core) for core in used),
        profiles=(),
        seed=0,
        slice_cases=options["cases"],
        arguments={"mode": REPLAY, "cluster": True, "cores": used},
    )
    return lambda connection, at: Begun([put_planned(connection, new, works, at)])


def _replays(rows: Sequence[tuple[str, str, int]], most: int) -> Iterator[NewWork]:
    """Slices of whole buckets of one core, of about so many examples."""
    slices: list[tuple[str, list[str]]] = []
    filled = 0
    for bucket, core, examples in rows:
        if not slices or slices[-1][0] != core or filled + examples > most:
            slices.append((core, []))
            filled = 0
        slices[-1][1].append(bucket)
        filled += examples
    return (replay_arguments(number, core, tuple(buckets)) for number, (core, buckets) in enumerate(slices))


def _retention(engine: Engine, options: Options) -> Begin:
    """Throw away at once, in the transaction that begins the run."""

    def begin(connection: Connection, at: datetime) -> Begun:
        thrown = throw_away(connection, options["examples"], at - timedelta(days=options["days"]))
        text = f"{thrown.findings} examples, {thrown.cases} cases, {thrown.planned} planned slices, details of {thrown.folded} slices"
        return Begun(outcome=f"thrown away: {text}")

    return begin


def _version(core: str) -> str:
    return CORES[core].available()[0] or ""


def _depth(value: Any) -> str:
    return "" if type(value) is int and value in (1, 2) else f"{value!r} is no depth; write 1 or 2"


_CORES = Option(some_of(lambda: CORES), [DEFAULT_CORE])
_PROFILES = Option(some_of(lambda: PROFILES))

_FUZZ = {
    "targets": Option(some_of(lambda: GENERATORS)),
    "profiles": _PROFILES,
    "cores": _CORES,
    "hours": Option(number(0.001, whole=False)),
    "cases": Option(number(1)),
}

JOBS: Mapping[str, Job] = {
    "sweep": Job({"targets": Option(some_of(lambda: TARGETS)), "profiles": _PROFILES, "cores": _CORES, "depth": Option(_depth, 1)}, _sweep),
    "fuzz": Job(_FUZZ | {"slice_cases": Option(number(1), 20_000)}, _fuzz),
    "guided": Job(_FUZZ | {"slice_cases": Option(number(1), 10_000)}, partial(_fuzz, mode=GUIDED)),
    "corpus-merge": Job({"targets": Option(some_of(lambda: GENERATORS)), "cores": _CORES}, _merge),
    "replay": Job({"cores": Option(some_of(lambda: CORES)), "cases": Option(number(1), 500)}, _replay),
    "retention": Job({"examples": Option(number(1), 20), "days": Option(number(1), 30)}, _retention),
}
"""By the name that stands in the timetable. A job that needs no more than campaigns of planned slices is a row here."""

OPTIONS: Mapping[str, Mapping[str, Option]] = {name: job.options for name, job in JOBS.items()}
"""What `read_timetable` has to know of the jobs."""


def begin_due(engine: Engine, timetable: Sequence[Entry], now: datetime) -> list[NightlyRunRow]:
    """Begin what was due last and has not been begun: of several nights that were missed, the last one. Returns the new runs."""
    begun = []
    for entry in timetable:
        due = entry.last_due(now)
        if not has_begun(engine, entry.name, due):
            begun.append(begin_run(engine, entry.name, entry.job, due, JOBS[entry.job].prepare(engine, entry.options), at=now))
    return [run for run in begun if run is not None]


def begin_now(engine: Engine, entry: Entry) -> NightlyRunRow | None:
    """Begin a job though it is not due, beside whatever runs of it there are; None if somebody did so at this very moment."""
    now = datetime.now(UTC)
    return begin_run(engine, entry.name, entry.job, now, JOBS[entry.job].prepare(engine, entry.options), beside=True, at=now)
