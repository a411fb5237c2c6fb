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

    return Mistake, DatabaseError, CaseError, CoreError, *_of_the_queue()


def _of_the_queue() -> tuple[type[Exception], ...]:
    """The queue's failures, where it is in use: its libraries take a while to load."""
    queue = sys.modules.get("workers.queue")
    return () if queue is None else (queue.QueueError,)
