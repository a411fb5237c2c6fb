"""`python -m fuzzer.guided.child JOB`: the process of a guided run, which libFuzzer owns. It ends when the process that started it does.

Exit 0: all executions are done. 3: an error of ours, on stderr. By a signal: an engine took it down.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Final, NoReturn

from fuzzer.cores.parent import die_with
from fuzzer.guided.job import LOG, OURS_IS_WRONG, Job, read_job

INSTRUMENTED: Final = "reference"


def main(path: str) -> NoReturn:
    """Do the job of a file; does not come back."""
    job = read_job(path)
    die_with(job.parent)
    _run(job)


def merge(path: str) -> NoReturn:
    """Let libFuzzer do what the arguments of this process say, with the cases and cores of a job of a file: it calls itself anew."""
    die_with(os.getppid())
    job = read_job(path)
    _run(replace(job, pipe=os.open(os.devnull, os.O_WRONLY)), sys.argv[1:])


def _run(job: Job, arguments: Sequence[str] = ()) -> NoReturn:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    log = os.open(Path(job.folder) / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, sys.stdout.fileno())
    os.dup2(log, sys.stderr.fileno())
    try:
        _loop(job, arguments)
    except BaseException:
        traceback.print_exc()
    os._exit(OURS_IS_WRONG)  # an ordinary end would wait for libFuzzer


def _loop(job: Job, arguments: Sequence[str]) -> None:
    atheris = import_module("atheris")
    with atheris.instrument_imports(include=[INSTRUMENTED]) if job.instrumented else contextlib.nullcontext():
        loop = import_module("fuzzer.guided.loop")
    loop.Loop(job).run(atheris, arguments)


if __name__ == "__main__":
    main(sys.argv[1])
