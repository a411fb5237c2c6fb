"""What people get wrong, told apart from what we get wrong."""

from __future__ import annotations

import sys


class Mistake(Exception):
    """Something was asked for that does not exist: one line with the thing, the place and the way out."""


def mistakes() -> tuple[type[Exception], ...]:
    """The exceptions that are a person's mistake or an engine's failure: one line each, no traceback."""
    from db.errors import DatabaseError
    from fuzzer.case_fields import CaseError
    from fuzzer.cores.core import CoreError

    return Mistake, DatabaseError, CaseError, CoreError, *_of_loaded_modules()


_LATE = {
    "workers.queue": "QueueError",
    "workers.metrics": "MetricsError",
    "workers.webhook": "WebhookError",
    "workers.timetable": "TimetableError",
}
"""Failures of modules whose libraries take a while to load: they count where the module is in use."""


def _of_loaded_modules() -> tuple[type[Exception], ...]:
    return tuple(getattr(sys.modules[module], name) for module, name in _LATE.items() if module in sys.modules)
