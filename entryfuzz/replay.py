"""Running one case again, from a file or from the database, on the specification and on cores."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from entryfuzz.database import opened
from entryfuzz.disassembly import Symbols
from entryfuzz.errors import Mistake
from entryfuzz.isolation import Lost, results
from entryfuzz.path import Boundary, walk
from fuzzer.build import build
from fuzzer.case import Case, decode
from fuzzer.case_json import parse
from fuzzer.compare import Comparison, compare
from fuzzer.cores.registry import CORES, CoreInfo
from fuzzer.explain import Explanation, explain
from fuzzer.signature import Signature, of_crash, of_parting_unseen
from fuzzer.targets.registry import TARGETS
from reference.image import End, Image, Observation
from reference.linux.contract import Violation, assumes, judge
from reference.run import run
from reference.trace import trace

if TYPE_CHECKING:
    from db.records import BucketRow, CaseRow, FindingRow

_ID = re.compile(r"[0-9a-fA-F]{4,64}")
_STANDARD_INPUT = "-"


@dataclass(frozen=True, slots=True)
class CoreRun:
    """A case on one core, compared with the specification; where they differ, `signature` is the cause and `explanation` the step.

    There is no explanation where the engine's process was lost, or where step by step both sides agree.
    """

    core: str
    version: str
    observation: Observation
    comparison: Comparison
    signature: Signature | None = None
    explanation: Explanation | None = None
    path: Sequence[Boundary] = ()


@dataclass(frozen=True, slots=True)
class Replay:
    """A case on the specification and on cores; the paths are there if they were asked for."""

    case: Case
    image: Image
    spec: Observation
    runs: tuple[CoreRun, ...]
    path: Sequence[Boundary] = ()
    violations: tuple[Violation, ...] = ()
    """Promises that the entry code breaks."""

    @property
    def diverges(self) -> bool:
        """Whether any core differs from the specification."""
        return any(each.comparison.differences for each in self.runs)


def replay(case: Case, cores: Sequence[CoreInfo], paths: bool = False) -> Replay:
    """Run a case on the specification and on each core."""
    image, symbols = build(case), Symbols(TARGETS[case.target].symbols)
    spec = run(image)
    runs = tuple(_on_core(case, spec, info, paths) for info in cores)
    path = specification_path(image, spec, symbols) if paths else ()
    return Replay(case, image, spec, runs, path, _violations(case, image))


def _violations(case: Case, image: Image) -> tuple[Violation, ...]:
    """What breaks the contract, where there is one for this entry code and this start state."""
    code = TARGETS[case.target].code
    changed = bool(case.registers or case.memory)
    if code is None or (changed and assumes(image, code)):
        return ()
    return judge(image, code)[1]


def specification_path(image: Image, spec: Observation, symbols: Symbols) -> list[Boundary]:
    """The way the specification takes; nothing where it cannot even begin."""
    if spec.end is End.NOT_MODELLED and not spec.registers:
        return []
    return walk(image, trace(image), symbols)


def _on_core(case: Case, spec: Observation, info: CoreInfo, paths: bool) -> CoreRun:
    """The case on a core in a process of its own; the last result before the process was lost, if it was."""
    version, _ = info.available()
    result: CoreRun | None = None
    try:
        for latest in results(stages, case, spec, info, paths):
            result = latest
    except Lost as lost:
        if result is None:
            observation = Observation(lost.end, detail=lost.detail)
            comparison = compare(build(case), spec, observation)
            signature = of_crash(info.name, case.profile, lost.end) if comparison.differences else None
            return CoreRun(info.name, version or "", observation, comparison, signature)
        if result.comparison.differences and result.signature is None:
            # It survived the run, and not being run step by step.
            return replace(result, signature=of_crash(info.name, case.profile, lost.end))
    assert result is not None
    return result


def stages(case: Case, spec: Observation, info: CoreInfo, paths: bool) -> Iterator[CoreRun]:
    """A case on a core, more and more complete: the comparison, its explanation, the path."""
    core, image = info.load(), build(case)
    (observation,) = core.run([image])
    comparison = compare(image, spec, observation)
    result = CoreRun(core.name, core.version, observation, comparison)
    yield result
    if comparison.differences:
        explanation = explain(image, core)
        unseen = of_parting_unseen(core.name, case.profile, comparison.differences)
        result = replace(result, signature=explanation.signature if explanation else unseen, explanation=explanation)
        yield result
    if paths:
        yield replace(result, path=walk(image, core.trace(image), Symbols(TARGETS[case.target].symbols)))


def find_core(name: str) -> CoreInfo:
    """The core of that name; Mistake where its engine is not installed."""
    version, reason = CORES[name].available()
    if version is None:
        raise Mistake(f"core {name}: {reason}")
    return CORES[name]


@dataclass(frozen=True, slots=True)
class Named:
    """A case that somebody named, and the core of the bucket it stands for, if it was named by one."""

    case: Case
    core: str | None = None


def find_case(name: str, database: str) -> Named:
    """The case of a file, of standard input (`-`), of a bucket id or of a case digest."""
    if name == _STANDARD_INPUT:
        return Named(parse(sys.stdin.read(), "standard input"))
    if Path(name).is_file():
        return Named(parse(_text(Path(name)), name))
    if not _ID.fullmatch(name):
        raise Mistake(f"{name}: there is no such file, and it is no id (4 to 64 hex digits); see entryfuzz divergences list")
    return _stored(name, database)


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise Mistake(f"{file}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise Mistake(f"{file}: not text; a case file is JSON in UTF-8") from None


def _stored(name: str, database: str) -> Named:
    from db import queries

    with opened(database) as engine:
        bucket = queries.bucket(engine, name)
        if bucket is not None:
            return Named(
                decode(smallest_case(queries.findings(engine, bucket.id, limit=1), bucket).data),
                bucket.core if bucket.core in CORES else None,
            )
        row = queries.case(engine, name)
    if row is None:
        raise Mistake(f"{name}: no bucket and no case of {database} begins like this; see entryfuzz divergences list --db {database}")
    return Named(decode(row.data))


def smallest_case(findings: Sequence[FindingRow], bucket: BucketRow) -> CaseRow:
    """The case that stands for a bucket."""
    if not findings:
        raise Mistake(f"bucket {bucket.id}: no example is stored; fuzz again to get one")
    return findings[0].case
