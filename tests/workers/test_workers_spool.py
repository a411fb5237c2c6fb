"""A finished result outlives a database that is away, and a later attempt outranks it."""

from __future__ import annotations

import errno
import json
import logging
import os
from dataclasses import replace
from pathlib import Path

import pytest
from cluster_builders import a_cluster_campaign, a_result
from sqlalchemy import Engine

from db.engine import open_database
from db.errors import DatabaseError
from db.queries import buckets
from db.work import claim, give_up, planned
from db.work_records import Held
from workers.result_json import from_json, to_json
from workers.spool import keep, store_kept


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return open_database(str(tmp_path / "results.db"))


def claimed(engine: Engine, campaign: int) -> Held:
    found = claim(engine, campaign, 0, "one", 60)
    assert found is not None
    return found.held


def test_a_result_comes_back_from_json_as_it_was() -> None:
    assert from_json(json.loads(json.dumps(to_json(a_result())))) == a_result()


def test_a_kept_result_is_stored_once(engine: Engine, tmp_path: Path) -> None:
    campaign = a_cluster_campaign(engine)
    held = claimed(engine, campaign)

    keep(tmp_path / "spool", held, a_result())
    assert store_kept(engine, tmp_path / "spool") == 1
    keep(tmp_path / "spool", held, a_result())
    store_kept(engine, tmp_path / "spool")

    assert [row.hits for row in buckets(engine)] == [3]
    assert planned(engine, campaign)[0].state == "done"
    assert list((tmp_path / "spool").iterdir()) == []


def test_a_kept_result_of_a_stale_attempt_is_refused_and_deleted(engine: Engine, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    campaign = a_cluster_campaign(engine)
    stale = claimed(engine, campaign)
    keep(tmp_path, stale, a_result())
    give_up(engine, stale, "its worker was killed")
    claimed(engine, campaign)

    assert store_kept(engine, tmp_path) == 0

    assert "slice 0 of campaign 1, attempt 1: refused" in caplog.text
    assert buckets(engine) == []
    assert not list(tmp_path.glob("slice-*"))


def test_a_file_that_is_no_result_is_deleted_and_stops_nothing(engine: Engine, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "slice-0-0-0.json").write_text('{"held": ')
    (tmp_path / "slice-0-0-1.json").write_text('{"held": {}, "result": {}}')
    keep(tmp_path, claimed(engine, a_cluster_campaign(engine)), a_result())

    assert store_kept(engine, tmp_path) == 1

    assert caplog.text.count("not a result of this program") == 2
    assert not list(tmp_path.glob("slice-*"))


def test_a_result_is_kept_until_the_database_is_back(engine: Engine, tmp_path: Path) -> None:
    held = claimed(engine, a_cluster_campaign(engine))
    kept = keep(tmp_path, held, a_result())
    gone = open_database(str(tmp_path / "results.db"))
    (tmp_path / "results.db").rename(tmp_path / "away.db")
    (tmp_path / "results.db").mkdir()
    for beside in ("-wal", "-shm"):
        (tmp_path / f"results.db{beside}").unlink(missing_ok=True)

    gone.dispose()
    with pytest.raises(DatabaseError):
        store_kept(gone, tmp_path)

    assert kept.exists()


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)

    with pytest.raises(OSError, match="No space left"):
        keep(tmp_path, Held(1, 0, 1, "one"), a_result())

    assert list(tmp_path.iterdir()) == []


def test_results_of_two_attempts_do_not_overwrite_each_other(tmp_path: Path) -> None:
    held = Held(1, 0, 1, "one")

    paths = {keep(tmp_path, each, a_result()) for each in (held, replace(held, attempt=2))}

    assert len(paths) == 2


@pytest.fixture(autouse=True)
def _log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
