"""What a line in the log is about: a campaign, a slice, an attempt, a worker. A formatter may put it beside the text of the line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from types import MappingProxyType

from db.work_records import Held, PlannedRow

Fields = Mapping[str, str | int]
_ABOUT: ContextVar[Fields] = ContextVar("about", default=MappingProxyType({}))


@contextmanager
def about(**fields: str | int | None) -> Iterator[None]:
    """Lines written meanwhile, by this thread and by processes that it forks, are about this as well."""
    token = _ABOUT.set({**_ABOUT.get(), **{name: value for name, value in fields.items() if value is not None}})
    try:
        yield
    finally:
        _ABOUT.reset(token)


def about_attempt(held: Held | PlannedRow) -> AbstractContextManager[None]:
    """The same for an attempt at a slice."""
    return about(campaign=held.campaign_id, slice=held.number, attempt=held.attempt, worker=held.worker)


def fields() -> Fields:
    """What a line that is written now is about."""
    return _ABOUT.get()
