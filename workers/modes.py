"""The ways to do a slice: for each mode what makes the work, and how its result is written down and stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine

from db import queries
from db.corpus import corpus_cases, put_corpus, take_from_corpus
from db.life import put_replay
from db.records import SliceResult
from db.store import put_slice
from db.sweep_records import PathFound
from db.sweeps import put_path
from db.work import Put
from db.work_records import NewWork
from workers import result_json
from workers.guided import GuidedResult, GuidedSlice
from workers.guided_campaign import REASON
from workers.merging import Merged, MergeWork
from workers.paths import PathWork
from workers.pool import Work
from workers.replaying import Example, ReplayWork
from workers.report import Report, finished, measured
from workers.slices import Slice

RANDOM, GUIDED, SWEEP, REPLAY, MERGE = "random", "guided", "sweep", "replay", "corpus-merge"

Make = Callable[[Engine, int, Mapping[str, Any]], tuple[Work[Any], tuple[str, ...]]]
"""The work of a slice, and the names of its cores, of its number and arguments; what is in the database is read before, not during."""


@dataclass(frozen=True, slots=True)
class Mode:
    """A way to do a slice. `to_json` and `from_json` are for results that wait in a spool, `put` stores one with the end of its slice, and
    `report` is what is counted of it.
    """

    make: Make
    to_json: Callable[[Any], dict[str, Any]]
    from_json: Callable[[dict[str, Any]], Any]
    put: Put[Any]
    report: Callable[[str, Any], Report]


class UnknownMode(Exception):
    """The slice is to be done in a way that this version does not know."""


def random_arguments(part: Slice, cores: tuple[str, ...]) -> NewWork:
    """A slice of random cases as planned work."""
    return _fuzz_arguments(RANDOM, part, cores)


def _fuzz_arguments(mode: str, part: Slice | GuidedSlice, cores: tuple[str, ...]) -> NewWork:
    names = {"target": part.target, "profiles": list(part.profiles), "seed": part.seed, "first": part.first, "count": part.count}
    return NewWork(part.number, mode, names | {"cores": list(cores)})


def _random(engine: Engine, number: int, arguments: Mapping[str, Any]) -> tuple[Work[Any], tuple[str, ...]]:
    fields = {name: arguments[name] for name in ("target", "seed", "first", "count")}
    return Slice(number, profiles=tuple(arguments["profiles"]), **fields), tuple(arguments["cores"])


def guided_arguments(part: GuidedSlice) -> NewWork:
    """A guided slice as planned work; it begins with the corpus as it is then."""
    return _fuzz_arguments(GUIDED, part, part.cores)


def _guided(engine: Engine, number: int, arguments: Mapping[str, Any]) -> tuple[Work[Any], tuple[str, ...]]:
    fields = {name: arguments[name] for name in ("target", "seed", "first", "count")}
    profiles, cores = tuple(arguments["profiles"]), tuple(arguments["cores"])
    return GuidedSlice(number, profiles=profiles, cores=cores, corpus=corpus_cases(engine, arguments["target"]), **fields), cores


def _put_guided(connection: Connection, campaign: int, result: GuidedResult, at: datetime) -> None:
    put_slice(connection, campaign, result.found, at)
    put_corpus(connection, result.target, result.corpus, REASON, at)


def merge_arguments(number: int, target: str, cores: tuple[str, ...]) -> NewWork:
    """The corpus of a target, to be made smaller, as planned work."""
    return NewWork(number, MERGE, {"target": target, "cores": list(cores)})


def _merge(engine: Engine, number: int, arguments: Mapping[str, Any]) -> tuple[Work[Any], tuple[str, ...]]:
    target, cores = arguments["target"], tuple(arguments["cores"])
    return MergeWork(number, target, corpus_cases(engine, target), cores), cores


def _put_merged(connection: Connection, campaign: int, result: Merged, at: datetime) -> None:
    put_slice(connection, campaign, SliceResult(result.number, result.cases, result.seconds, {}, {}, 0, {}, []), at)
    take_from_corpus(connection, result.dropped)


_PATH = ("target", "scenario", "profile", "start", "depth")
_PATH_LISTS = ("kinds", "second")


def sweep_arguments(work: PathWork, core: str) -> NewWork:
    """A path of a sweep as planned work."""
    fields = asdict(work)
    named = {name: fields[name] for name in _PATH} | {name: list(fields[name]) for name in _PATH_LISTS}
    return NewWork(work.number, SWEEP, named | {"core": core})


def _sweep(engine: Engine, number: int, arguments: Mapping[str, Any]) -> tuple[Work[Any], tuple[str, ...]]:
    fields = {name: arguments[name] for name in _PATH} | {name: tuple(arguments[name]) for name in _PATH_LISTS}
    return PathWork(number, **fields), (arguments["core"],)


def replay_arguments(number: int, core: str, buckets: tuple[str, ...]) -> NewWork:
    """The examples of some buckets of one core, named by their ids, as planned work."""
    return NewWork(number, REPLAY, {"core": core, "buckets": list(buckets)})


def _replay(engine: Engine, number: int, arguments: Mapping[str, Any]) -> tuple[Work[Any], tuple[str, ...]]:
    cases = {(bucket, finding.case.digest): finding.case for bucket in arguments["buckets"] for finding in queries.findings(engine, bucket)}
    examples = tuple(Example(bucket, digest, case.data, case.target, case.scenario) for (bucket, digest), case in cases.items())
    return ReplayWork(number, arguments["core"], examples), (arguments["core"],)


def _found(outcome: str, result: GuidedResult | PathFound) -> Report:
    return finished(outcome, result.found)


MODES: Mapping[str, Mode] = {
    RANDOM: Mode(_random, result_json.to_json, result_json.from_json, put_slice, finished),
    GUIDED: Mode(_guided, result_json.guided_to_json, result_json.guided_from_json, _put_guided, _found),
    SWEEP: Mode(_sweep, result_json.path_to_json, result_json.path_from_json, put_path, _found),
    REPLAY: Mode(_replay, result_json.replay_to_json, result_json.replay_from_json, put_replay, measured),
    MERGE: Mode(_merge, result_json.merged_to_json, result_json.merged_from_json, _put_merged, measured),
}
"""By the name that stands in the database."""


def mode(name: str) -> Mode:
    """The mode of that name; UnknownMode where this program has none."""
    if name not in MODES:
        raise UnknownMode(f"no mode {name}; this program knows {', '.join(MODES)}: update the worker")
    return MODES[name]
