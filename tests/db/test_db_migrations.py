from dataclasses import replace
from importlib import import_module

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory
from db_builders import a_bucket, a_campaign, a_finding, a_slice
from sqlalchemy import Engine, create_engine, inspect, text
from sqlalchemy.exc import DBAPIError

from db.engine import open_database
from db.migrations import HEAD, REVISIONS
from db.models import Base
from db.queries import buckets, campaigns
from db.store import count_findings, save_slice, start_campaign
from db.transactions import reading, writing
from db.views import create_views, drop_views

DEPENDING_ON_BUCKET = ["status_change", "bucket_replay", "vote", "verdict", "finding", "bucket_hits", "bucket_target", "bucket"]


def test_the_migrations_make_what_the_models_say(engine: Engine) -> None:
    with reading(engine) as connection:
        differences = compare_metadata(MigrationContext.configure(connection), Base.metadata)

    assert differences == [], "write a migration that does this"


def test_the_migrations_make_the_check_constraints_of_the_models(engine: Engine) -> None:
    with reading(engine) as connection:
        made = {check["name"] for table in Base.metadata.tables for check in inspect(connection).get_check_constraints(table)}

    assert made == {"ck_bucket_kind", "ck_bucket_by", "ck_planned_slice_state"}


def test_the_list_of_revisions_is_the_history() -> None:
    config = Config()
    config.set_main_option("script_location", "db:migrations")
    script = ScriptDirectory.from_config(config)

    assert tuple(reversed([step.revision for step in script.walk_revisions()])) == REVISIONS
    assert script.get_current_head() == HEAD


def test_every_constraint_has_a_name_for_a_later_migration_to_call_it_by(engine: Engine) -> None:
    with reading(engine) as connection:
        inspector = inspect(connection)
        names = [inspector.get_pk_constraint(table)["name"] for table in Base.metadata.tables]
        names += [key["name"] for table in Base.metadata.tables for key in inspector.get_foreign_keys(table)]
        names += [unique["name"] for table in Base.metadata.tables for unique in inspector.get_unique_constraints(table)]

    assert all(names)


def test_a_migration_can_rebuild_a_table_that_others_refer_to(engine: Engine) -> None:
    save_slice(engine, start_campaign(engine, a_campaign()), a_slice(0, [a_finding()]))

    with writing(engine, migrating=True) as connection:
        drop_views(connection)
        operations = Operations(MigrationContext.configure(connection))
        with operations.batch_alter_table("campaign") as batch:
            batch.alter_column("core_version", nullable=True)
        create_views(connection)

    assert len(campaigns(engine)) == 1
    assert buckets(engine)[0].hits == 1


def test_a_migration_that_fails_half_way_leaves_the_database_as_it_was(url: str) -> None:
    engine = open_database(url)
    with writing(engine) as connection:
        connection.execute(text("DELETE FROM alembic_version"))
        drop_views(connection)
        Base.metadata.drop_all(connection, tables=[Base.metadata.tables[name] for name in DEPENDING_ON_BUCKET])

    # The first step makes `bucket` anew and then stumbles over `campaign`.
    with pytest.raises(DBAPIError, match="already exists"):
        open_database(url)

    assert not inspect(engine).has_table("bucket")
    engine.dispose()


def test_hits_and_findings_from_before_they_stood_beside_the_bucket_are_added_up(url: str) -> None:
    engine = open_database(url)
    campaign = start_campaign(engine, a_campaign())
    save_slice(engine, campaign, a_slice(0, [a_finding("one"), a_finding("one", b"2")], hits={"one": 7}))
    save_slice(engine, campaign, a_slice(1, [a_finding("one"), a_finding("two")], hits={"one": 5, "two": 1}))
    before = buckets(engine)
    step = import_module("db.migrations.versions.0007_querying")

    with writing(engine) as connection:
        connection.execute(text("UPDATE bucket SET hits = 0, findings = 0"))
        connection.execute(text(step._SUMS))

    assert [(row.signature, row.hits, row.findings) for row in before] == [("one", 12, 2), ("two", 1, 1)]
    assert buckets(engine) == before
    engine.dispose()


def test_findings_that_are_deleted_are_no_longer_counted(engine: Engine) -> None:
    save_slice(engine, start_campaign(engine, a_campaign()), a_slice(0, [a_finding("one"), a_finding("one", b"2")], hits={"one": 7}))
    (row,) = buckets(engine)

    with writing(engine) as connection:
        connection.execute(text("DELETE FROM finding WHERE id = (SELECT min(id) FROM finding)"))
        count_findings(connection, [row.id])

    assert buckets(engine) == [replace(row, findings=1)]


def test_findings_from_before_the_sweeps_are_kept(url: str) -> None:
    old = create_engine(url if "://" in url else f"sqlite:///{url}")
    config = Config()
    config.set_main_option("script_location", "db:migrations")
    with old.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        columns = 'id, signature, kind, area, core, profile, "by", cause, rule, expected, observed, title, status, first_seen, last_seen'
        values = ", ".join(["'x'", "'s'", "'divergence'", "'gs'", "'unicorn'", "'intel'", "'engine'", *["''"] * 5, "'open'", ":at", ":at"])
        connection.execute(text(f"INSERT INTO bucket ({columns}) VALUES ({values})"), {"at": "2026-01-31 00:00:00"})
    old.dispose()

    engine = open_database(url)

    assert [(row.id, row.by) for row in buckets(engine)] == [("x", "engine")]
    save_slice(
        engine, start_campaign(engine, a_campaign()), a_slice(0, [replace(a_finding("mine"), bucket=a_bucket("mine", by="entry code"))])
    )
    with pytest.raises(DBAPIError, match="ck_bucket_by"), writing(engine) as connection:
        connection.execute(text("UPDATE bucket SET \"by\" = 'nobody'"))
    engine.dispose()
