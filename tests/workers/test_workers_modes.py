"""What every mode of planned slices keeps: its result survives a spool, and a stale attempt stores nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cluster_builders import a_cluster_campaign, a_result
from sqlalchemy import Engine, func, select

from db import work
from db.engine import open_database
from db.life_records import ReplayedCase, ReplayFound
from db.models import Base
from db.records import bucket_id
from db.store import save_slice
from db.sweep_records import PathFound, SweptPath
from db.sweeps import put_sweep
from db.transactions import reading, writing
from db.work_records import Held, Measured
from workers.guided import GuidedResult
from workers.merging import Merged
from workers.modes import MODES, mode
from workers.spool import keep, store_kept

PATH = SweptPath(0, "int3-from-user", "intel", "00ff", 3, {"nmi": "ddx"}, 3, 0, 0, 1, 0.5)
CASE = a_result().findings[0].case.digest
RESULTS: dict[str, Measured] = {
    "random": a_result(),
    "guided": GuidedResult(a_result(), "linux4", (b"\x01", b"\x02")),
    "sweep": PathFound(PATH, a_result()),
    "corpus-merge": Merged(0, 3, 0.5, ("00ff",)),
    "replay": ReplayFound(0, "unicorn", "3.0", 0.5, 0, [ReplayedCase(bucket_id("gs"), CASE, "")]),
}
every_mode = pytest.mark.parametrize("name", MODES)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = open_database(str(tmp_path / "results.db"))
    yield engine
    engine.dispose()


def leased(engine: Engine) -> Held:
    """An attempt at a slice of a campaign that is a sweep as well, where the bucket is known already."""
    save_slice(engine, a_cluster_campaign(engine), a_result())
    campaign = a_cluster_campaign(engine)
    with writing(engine) as connection:
        put_sweep(connection, campaign, "key", 1)
    claim = work.claim(engine, campaign, 0, "one", 60)
    assert claim is not None
    return claim.held


def stored(engine: Engine) -> dict[str, int]:
    """How many rows there are of everything that a result can add to, and the status of the bucket."""
    tables = ("slice", "bucket", "bucket_hits", "sweep_path", "bucket_replay", "status_change", "corpus")
    with reading(engine) as connection:
        return {name: connection.execute(select(func.count()).select_from(Base.metadata.tables[name])).scalar_one() for name in tables}


def test_every_mode_is_tested_here() -> None:
    assert RESULTS.keys() == MODES.keys()


@every_mode
def test_a_result_comes_back_from_json_as_it_was(name: str) -> None:
    assert mode(name).from_json(json.loads(json.dumps(mode(name).to_json(RESULTS[name])))) == RESULTS[name]


@every_mode
def test_a_result_is_stored_with_the_end_of_its_slice_and_again_changes_nothing(engine: Engine, name: str) -> None:
    held = leased(engine)
    before = stored(engine)

    work.finish_with(engine, held, RESULTS[name], mode(name).put)
    once = stored(engine)
    work.finish_with(engine, held, RESULTS[name], mode(name).put)

    assert once["slice"] == before["slice"] + 1
    assert stored(engine) == once
    assert work.planned(engine, held.campaign_id)[0].state == "done"


@every_mode
def test_a_stale_attempt_stores_nothing_neither_at_once_nor_from_the_spool(engine: Engine, tmp_path: Path, name: str) -> None:
    held = leased(engine)
    work.give_up(engine, held, "its worker was killed")
    assert work.claim(engine, held.campaign_id, 0, "two", 60) is not None
    before = stored(engine)

    with pytest.raises(work.StaleAttempt):
        work.finish_with(engine, held, RESULTS[name], mode(name).put)
    keep(tmp_path / "spool", held, RESULTS[name], name)

    assert store_kept(engine, tmp_path / "spool") == 0
    assert stored(engine) == before


@every_mode
def test_a_result_that_cannot_be_stored_leaves_its_slice_undone(engine: Engine, name: str) -> None:
    held = leased(engine)
    before = stored(engine)

    def half(connection: object, campaign: int, result: Measured, at: datetime) -> None:
        mode(name).put(connection, campaign, result, at)  # type: ignore[arg-type]
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError):
        work.finish_with(engine, held, RESULTS[name], half, at=datetime.now(UTC))

    assert stored(engine) == before
    assert work.planned(engine, held.campaign_id)[0].state == "leased"
