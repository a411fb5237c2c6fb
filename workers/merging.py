"""Making a corpus smaller: the fewest cases that reach all that its cases reach, as libFuzzer chooses them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from db.records import case_digest
from fuzzer.case import decode, encode
from fuzzer.cores.core import Core, CoreError
from fuzzer.guided.job import FOUND, INPUTS, LOG, Job
from reference.image import End
from reference.profiles import PROFILES
from workers.child import Starting
from workers.guided_child import SECONDS_PER_EXECUTION, START_SECONDS, check_guidance, write_inputs

_PROGRAM: Final = """#!{python}
from fuzzer.guided.child import merge

merge({job!r})
"""
"""libFuzzer calls itself anew for every case that takes the process down, by the name it was called by: so that has to be a program."""
_LONGEST_RUN: Final = 30
"""Seconds after which a case is left out."""


@dataclass(frozen=True, slots=True)
class Merged:
    """Which cases of a corpus, by their digests, need not be kept."""

    number: int
    cases: int
    seconds: float
    dropped: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MergeWork:
    """The corpus of a target, to be made smaller in one piece."""

    number: int
    target: str
    corpus: tuple[bytes, ...]
    cores: tuple[str, ...]

    def without(self, case: int, place: int, end: End) -> MergeWork:
        """The same: the engines that are watched here run nothing of it."""
        return self

    def run(self, cores: Sequence[Core], starting: Starting) -> Merged:
        """What may go."""
        begun = time.monotonic()
        dropped = dispensable(self.target, self.corpus, self.cores)
        return Merged(self.number, len(self.corpus), time.monotonic() - begun, dropped)


def dispensable(target: str, cases: Sequence[bytes], cores: Sequence[str]) -> tuple[str, ...]:
    """The digests of those of the cases that are not needed, in their order; CoreError as `merged`."""
    kept = set(merged(target, cases, cores))
    return tuple(sorted(case_digest(data) for data in cases if data not in kept))


def merged(target: str, cases: Sequence[bytes], cores: Sequence[str]) -> tuple[bytes, ...]:
    """Those of the cases that are needed, in the order of their bytes; CoreError where libFuzzer keeps none of them."""
    if not cases:
        return ()
    check_guidance()
    with TemporaryDirectory(prefix="entryfuzz-merge-") as place:
        folder = Path(place)
        for name in (INPUTS, FOUND):
            (folder / name).mkdir()
        write_inputs(folder / INPUTS, sorted(cases))
        job = Job(place, target, tuple(PROFILES), tuple(cores), 0, 0, 1 << 60, -1, os.getpid(), instrumented=False)
        program = folder / "merge"
        program.write_text(_PROGRAM.format(python=sys.executable, job=str(job.write())), encoding="utf-8")
        program.chmod(0o700)
        arguments = ("-set_cover_merge=1", f"-timeout={_LONGEST_RUN}", "-rss_limit_mb=0", str(folder / FOUND), str(folder / INPUTS))
        try:
            subprocess.run((str(program), *arguments), cwd=folder, check=False, timeout=START_SECONDS + len(cases) * SECONDS_PER_EXECUTION)
        except subprocess.TimeoutExpired:
            raise CoreError(f"corpus of {target}: its merge did not end; nothing was changed") from None
        kept = tuple(sorted({encode(decode(path.read_bytes())) for path in (folder / FOUND).iterdir()}))
        if not kept:
            raise CoreError(f"corpus of {target}: libFuzzer kept none of {len(cases)} cases, so nothing was changed: {_last_words(folder)}")
        return kept


def _last_words(folder: Path) -> str:
    log = folder / LOG
    return " ".join(log.read_text(encoding="utf-8", errors="replace")[-300:].split()) if log.exists() else "it said nothing"
