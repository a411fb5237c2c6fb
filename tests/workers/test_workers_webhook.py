"""The webhook: every new bucket is told at least once, to a real server that may fail, and nothing waits for it."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from cluster_builders import a_cluster_campaign
from sqlalchemy import Engine

from db.queries import buckets
from db.records import NewBucket, NewCase, NewFinding, SliceResult
from db.store import save_slice
from db.webhooks import begin_telling, untold
from workers import webhook
from workers.webhook import NAME, WebhookError, check, tell_new, telling

PATIENCE = 20.0


class Listener:
    """A server that keeps what it is told, and answers with what is in `answers`, then with 204."""

    def __init__(self) -> None:
        self.bodies: list[Any] = []
        self.answers: list[int] = []
        self.delay = 0.0
        listener = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                time.sleep(listener.delay)
                answer = listener.answers.pop(0) if listener.answers else 204
                if answer == 204:
                    listener.bodies.append((self.path, self.headers["Content-Type"], json.loads(body)))
                self.send_response(answer)
                self.send_header("Location", "/elsewhere")
                self.end_headers()

            def log_message(self, *arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook/secret"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def told(self) -> list[str]:
        return [bucket["id"] for _, _, body in self.bodies for bucket in body["buckets"]]


@pytest.fixture
def listener() -> Iterator[Listener]:
    listener = Listener()
    yield listener
    listener.close()


def find(engine: Engine, campaign: int, number: int, *signatures: str, at: datetime | None = None) -> list[str]:
    """Store a slice that hit these buckets, and return their ids."""
    new = [NewBucket(name, "divergence", "gs", "unicorn", "intel", "engine", "c", "r", "e", "o", f"title {name}") for name in signatures]
    found = [NewFinding(each, NewCase(each.signature.encode(), "snippets", "user", "intel", ""), "2.1.4", {}, {}, []) for each in new]
    save_slice(engine, campaign, SliceResult(number, 10, 1.0, {}, {}, 0, dict.fromkeys(signatures, 1), found), at=at)
    return [each.id for each in new]


def until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_new_bucket_is_told_once_with_what_it_is(engine: Engine, listener: Listener) -> None:
    campaign = a_cluster_campaign(engine)
    find(engine, campaign, 0, "old")
    begin_telling(engine, NAME)
    (told,) = find(engine, campaign, 1, "new")

    assert [tell_new(engine, listener.url) for _ in range(2)] == [1, 0]

    ((path, content, body),) = listener.bodies
    assert (path, content, body["event"]) == ("/hook/secret", "application/json", "new-buckets")
    first_seen = next(row.first_seen for row in buckets(engine) if row.id == told)
    assert body["buckets"] == [
        {
            "id": told, "title": "title new", "area": "gs", "core": "unicorn", "profile": "intel", "kind": "divergence", "by": "engine",
            "verdict": None, "status": "open", "first_seen": first_seen.isoformat(),
        }
    ]  # fmt: skip


@pytest.mark.parametrize("answer", [500, 404, 301, 302, 303, 307])
def test_what_was_not_heard_is_told_again(engine: Engine, listener: Listener, answer: int) -> None:
    begin_telling(engine, NAME)
    told = find(engine, a_cluster_campaign(engine), 0, "new")
    listener.answers = [answer]

    with pytest.raises(OSError, match=str(answer)):
        tell_new(engine, listener.url)
    assert tell_new(engine, listener.url) == 1

    assert listener.told() == told


def test_a_bucket_that_is_stored_late_is_told_although_younger_ones_were(engine: Engine, listener: Listener) -> None:
    now = datetime.now(UTC)
    begin_telling(engine, NAME, at=now - timedelta(hours=1))
    campaign = a_cluster_campaign(engine)
    young = find(engine, campaign, 0, "young", at=now)
    tell_new(engine, listener.url)
    late = find(engine, campaign, 1, "late", at=now - timedelta(minutes=5))

    tell_new(engine, listener.url)

    assert listener.told() == young + late


def test_many_buckets_come_in_several_requests(engine: Engine, listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "BATCH", 3)
    begin_telling(engine, NAME)
    told = find(engine, a_cluster_campaign(engine), 0, *(f"bucket {number}" for number in range(8)))

    with telling(engine, listener.url, seconds=60):
        until(lambda: len(listener.told()) == 8)

    assert sorted(listener.told()) == sorted(told)
    assert [len(body["buckets"]) for _, _, body in listener.bodies] == [3, 3, 2]


def test_a_restart_neither_loses_nor_repeats(engine: Engine, listener: Listener) -> None:
    campaign = a_cluster_campaign(engine)
    begin_telling(engine, NAME)
    first = find(engine, campaign, 0, "first")
    with telling(engine, listener.url, seconds=0.05):
        until(lambda: listener.told() == first)
    between = find(engine, campaign, 1, "between")

    with telling(engine, listener.url, seconds=0.05):
        until(lambda: len(listener.told()) == 2)

    assert listener.told() == first + between
    assert untold(engine, NAME, 10) == []


def test_somebody_who_fails_is_named_in_the_log_once_and_asked_again(
    engine: Engine, listener: Listener, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    begin_telling(engine, NAME)
    told = find(engine, a_cluster_campaign(engine), 0, "new")
    listener.answers = [500] * 5

    with telling(engine, listener.url, seconds=0.05):
        until(lambda: listener.told() == told)
        until(lambda: "answers again" in caplog.text)

    assert caplog.text.count("HTTP Error 500") == 1
    assert "secret" not in caplog.text


def test_nobody_waits_for_somebody_who_does_not_answer(engine: Engine, listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "TIMEOUT_SECONDS", 0.3)
    begin_telling(engine, NAME)
    find(engine, a_cluster_campaign(engine), 0, "new")
    listener.delay = 1.0

    with pytest.raises(TimeoutError):
        tell_new(engine, listener.url)

    assert len(untold(engine, NAME, 10)) == 1


@pytest.mark.parametrize("url", ["ftp://host/x", "file:///etc/passwd", "host/path", "http://", "https://host:port/", "", "http://[::1"])
def test_only_http_and_https_are_taken(url: str) -> None:
    with pytest.raises(WebhookError, match="not an http or https URL"):
        check(url)


def test_a_password_in_the_url_is_refused_and_not_repeated() -> None:
    with pytest.raises(WebhookError, match="put the secret into the path") as refused:
        check("https://me:hunter2@host/x")

    assert "hunter2" not in str(refused.value)
