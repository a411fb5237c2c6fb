"""Trials in several processes: the results are those of one process, and a process that is lost is told."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

import workers.mutating
from fuzzer.cores.core import CoreError
from fuzzer.mutants.trial import Trial, run_trial
from workers.mutating import run_trials

HERE = Path(__file__).parent
WORK = [Trial("entry-without-swapgs", arm, seed, 30.0) for arm in ("sweep", "random") for seed in (1, 2)]


def leave(trial: Trial) -> None:
    """What an engine does that takes its process down."""
    os._exit(9)


def test_two_processes_find_what_one_finds() -> None:
    found = {result.trial: replace(result, seconds=0) for result in run_trials(WORK, 2)}

    assert found == {trial: replace(run_trial(trial), seconds=0) for trial in WORK}


def test_a_process_that_is_lost_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(HERE))  # the spawned processes import this file to find `leave`
    monkeypatch.setattr(workers.mutating, "run_trial", leave)

    with pytest.raises(CoreError, match="an engine took its process down"):
        list(run_trials(WORK, 2))
