"""`python -m fuzzer.guided.child JOB`: the process of a guided run, which libFuzzer owns. It ends when the process that started it does.

Exit 0: all executions are done. 3: an error of ours, on stderr. By a signal: an engine took it down.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import traceback
from importlib import import_module
from pathlib import Path
from typing import Final

from fuzzer.guided.job import LOG, OURS_IS_WRONG, Job, read_job

INSTRUMENTED: Final = "reference"
_PR_SET_PDEATHSIG: Final = 1


def main(path: str) -> None:
    """Do the job of a file; does not come back."""
    job = read_job(path)
    _end_with(job.parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    log = os.open(Path(job.folder) / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, sys.stdout.fileno())
    os.dup2(log, sys.stderr.fileno())
    try:
        _run(job)
    except BaseException:
        traceback.print_exc()
    os._exit(OURS_IS_WRONG)  # an ordinary end would wait for libFuzzer


def _run(job: Job) -> None:
    atheris = import_module("atheris")
    with atheris.instrument_imports(include=[INSTRUMENTED]) if job.instrumented else contextlib.nullcontext():
        loop = import_module("fuzzer.guided.loop")
    loop.Loop(job).run(atheris)


def _end_with(parent: int) -> None:
    """Be killed when the parent ends, however it ends; where it has ended already, end at once."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1])
