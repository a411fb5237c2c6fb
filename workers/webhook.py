"""New buckets, posted to whoever wants to hear of them: at least once each, and never at the cost of the scheduler."""

from __future__ import annotations

import json
import logging
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPException
from threading import Event, Thread
from urllib.parse import urlsplit

from sqlalchemy import Engine

from db.errors import DatabaseError
from db.records import BucketRow
from db.webhooks import begin_telling, mark_told, untold

log = logging.getLogger(__name__)

NAME = "webhook"
STEP_SECONDS = 2.0
TIMEOUT_SECONDS = 5.0
BATCH = 100
"""Buckets in one request."""
FIELDS = ("id", "title", "area", "core", "profile", "kind", "by", "verdict", "status")


class WebhookError(Exception):
    """The URL cannot be posted to: one line with the thing and the way out."""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirected POST becomes a GET without its body: that is a failure, not an answer."""

    def redirect_request(self, *arguments: object) -> None:
        """Go nowhere."""


_OPENER = urllib.request.build_opener(_NoRedirects)


@contextmanager
def telling(engine: Engine, url: str | None, *, seconds: float = STEP_SECONDS) -> Iterator[None]:
    """Tell the URL of every new bucket meanwhile, in a thread of its own; without a URL, do nothing. WebhookError: it is none."""
    if url is None:
        yield
        return
    check(url)
    stop = Event()
    thread = Thread(target=_keep_telling, args=(engine, url, stop, seconds), name="webhook", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        # Somebody who does not answer is not waited for: what was not marked is told again.
        thread.join(2 * TIMEOUT_SECONDS)


def check(url: str) -> None:
    """WebhookError unless the URL can be posted to."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    # The URL is not repeated: there may be a secret in it.
    if not usable:
        raise WebhookError("webhook: not an http or https URL; write https://host/path")
    if parts.username is not None or parts.password is not None:
        raise WebhookError(f"webhook: {parts.hostname}: a user or password in the URL is not sent; put the secret into the path")


def _keep_telling(engine: Engine, url: str, stop: Event, seconds: float) -> None:
    host, failing = urlsplit(url).hostname, False
    while not stop.is_set():
        try:
            while tell_new(engine, url) == BATCH and not stop.is_set():
                pass
            if failing:
                log.info("webhook: %s: answers again", host)
            failing = False
        except (DatabaseError, OSError, HTTPException, ValueError) as error:
            # Once, not every other second for as long as it lasts.
            if not failing:
                log.warning("webhook: %s: %s; tried again every %.0f s", host, " ".join(str(error).split()), seconds)
            failing = True
        stop.wait(seconds)


def tell_new(engine: Engine, url: str) -> int:
    """Post one batch of what is new, and return how many buckets that were; OSError, HTTPException: they were not heard."""
    begin_telling(engine, NAME)
    new = untold(engine, NAME, BATCH)
    if new:
        _post(url, new)
        mark_told(engine, NAME, [row.id for row in new])
        log.info("webhook: told of %d new buckets", len(new))
    return len(new)


def _post(url: str, new: Sequence[BucketRow]) -> None:
    rows = [{name: getattr(row, name) for name in FIELDS} | {"first_seen": row.first_seen.isoformat()} for row in new]
    body = json.dumps({"event": "new-buckets", "buckets": rows}).encode()
    headers = {"Content-Type": "application/json", "User-Agent": "entryfuzz"}
    request = urllib.request.Request(url, body, headers, method="POST")
    with _OPENER.open(request, timeout=TIMEOUT_SECONDS):
        pass
