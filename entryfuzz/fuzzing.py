"""A campaign with its progress on stderr: a line that changes on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from entryfuzz.output import console, note
from entryfuzz.replay import find_core
from entryfuzz.views.campaign import progress_line

if TYPE_CHECKING:
    from workers.local import Progress, Settings, Summary

_SECONDS_BETWEEN_LINES = 10.0


def fuzz_with_progress(settings: Settings) -> Summary:
    """Run a campaign to its end, telling how it goes."""
    from workers.local import run_campaign

    for name in settings.cores:
        find_core(name)
    how = "" if settings.mode == "random" else f"{settings.mode}, "
    note(f"fuzzing {', '.join(settings.targets)} on {', '.join(settings.cores)}, {how}seed {settings.seed}, results in {settings.database}")
    if not sys.stderr.isatty():
        return run_campaign(settings, _Lines(settings))
    with console(error=True).status("starting") as status:
        return run_campaign(settings, lambda progress: status.update(progress_line(progress, settings)))


class _Lines:
    """Progress for a log: at most one line in ten seconds."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._next = time.monotonic() + _SECONDS_BETWEEN_LINES

    def __call__(self, progress: Progress) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _SECONDS_BETWEEN_LINES
            note(progress_line(progress, self._settings))
