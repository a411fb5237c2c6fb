"""A run over planted bugs with its progress on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any

from entryfuzz.output import console, note

_LINES = 10
"""Lines of progress where stderr is no terminal."""


def score_with_progress(names: Sequence[str], seconds: float, seed: int, jobs: int) -> dict[str, Any]:
    """The score of some mutants, telling how it goes."""
    from fuzzer.mutants.score import SEEDS, score, trials
    from workers.mutating import run_trials

    start = time.perf_counter()
    work = trials(names, seconds, seed)
    note(f"looking for {len(names)} mutants in {len(work)} trials of at most {seconds:g} seconds, {jobs} at a time")
    results = []
    with console(error=True).status("starting") as status:
        for done, result in enumerate(run_trials(work, jobs), start=1):
            results.append(result)
            line = f"{done} of {len(work)} trials"
            status.update(line)
            if not sys.stderr.isatty() and done % max(1, len(work) // _LINES) == 0:
                note(line)
    head = {"seed": seed, "seeds": SEEDS, "seconds_per_mutant": seconds, "jobs": jobs}
    return {**head, **score(names, results), "seconds": round(time.perf_counter() - start, 1)}
