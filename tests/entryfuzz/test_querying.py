"""docs/querying.md: the columns of the views, and the queries, in both databases, on what a small campaign found."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from postgres_schema import schema
from servers import Server
from sqlalchemy import Engine

from db.engine import open_database
from db.queries import buckets, findings
from db.records import NewBucket, NewCase, NewFinding, SliceResult
from db.store import save_slice
from db.transactions import reading
from db.views import VIEWS
from db.vote_records import NewVerdict, VoteRecord
from db.votes import save_verdict
from fuzzer.verdict import Verdict
from fuzzer.vote import Stance
from workers.local import Settings, run_campaign

PAGE = (Path(__file__).parents[2] / "docs" / "querying.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## `(v_[a-z]+)`\n(.*?)(?=^## )", PAGE, re.DOTALL | re.MULTILINE))
QUERIES = re.findall(r"\*\*(.*?)\*\*[^`]*?(?:`[^`]+`[^`]*?)*```sql\n(.*?)```", PAGE, re.DOTALL)
VERDICTS = (Verdict.ENGINE_DEFECT, Verdict.DISPUTED, Verdict.ENGINE_DEFECT)


def fill(url: str) -> Engine:
    """A campaign on Unicorn, verdicts on some buckets, and one case that another core fails too."""
    campaign = run_campaign(Settings(("snippets",), ("unicorn",), 11, 600, None, 1, ("intel", "amd"), url)).campaign_id
    engine = open_database(url)
    found = buckets(engine)
    for row, verdict in zip(sorted(found, key=lambda row: row.id), VERDICTS, strict=False):
        votes = [
            VoteRecord("unicorn", "2.1.4", Stance.ACCUSED.value, row.observed),
            VoteRecord("silicon", "a-processor", Stance.SPECIFICATION.value, row.expected),
            VoteRecord("qemu", "7.2", Stance.ACCUSED.value, row.observed),
        ]
        save_verdict(engine, NewVerdict(row.id, verdict, "a reason", row.expected, findings(engine, row.id)[0].case.digest, votes))
    also = findings(engine, found[0].id)[0]
    case = NewCase(also.case.data, also.case.target, also.case.scenario, also.case.profile, "")
    names = ("kind", "area", "profile", "by", "cause", "rule", "expected", "observed", "title")
    bucket = NewBucket(signature="on qemu", core="qemu", **{name: getattr(found[0], name) for name in names})
    on_qemu = NewFinding(bucket, case, "7.2", also.spec, also.observed, also.differences)
    save_slice(engine, campaign, SliceResult(999, 1, 0.5, {}, {}, 0, {"on qemu": 1}, [on_qemu]))
    return engine


@pytest.fixture(scope="module")
def engines(postgres: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Engine]]:
    """The same in both databases."""
    with schema(postgres.url) as url:
        made = {"sqlite": fill(str(tmp_path_factory.mktemp("querying") / "findings.db")), "postgresql": fill(url)}
        yield made
        for engine in made.values():
            engine.dispose()


def ask(engine: Engine, query: str) -> tuple[list[str], list[list[Any]]]:
    with reading(engine) as connection:
        result = connection.exec_driver_sql(query.replace("%", "%%") if engine.dialect.name == "postgresql" else query)
        return list(result.keys()), [list(row) for row in result]


def same(rows: list[list[Any]]) -> list[list[Any]]:
    """Numbers as one type: PostgreSQL adds up to a Decimal."""
    return [[value if isinstance(value, str | datetime | None) else round(float(value), 6) for value in row] for row in rows]


def test_there_are_ten_queries() -> None:
    assert len(QUERIES) == PAGE.count("```sql") == 10


def test_every_view_has_a_section() -> None:
    assert set(SECTIONS) == set(VIEWS)


@pytest.mark.parametrize("view", VIEWS)
def test_every_column_is_documented_and_every_documented_column_is_there(engines: dict[str, Engine], view: str) -> None:
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", SECTIONS[view], re.MULTILINE)
    documented = {name for row in rows for name in re.findall(r"`(\w+)`", row)}

    for engine in engines.values():
        columns, filled = ask(engine, f"SELECT * FROM {view}")

        assert set(columns) == documented
        assert filled


@pytest.mark.parametrize("query", [query for _, query in QUERIES], ids=[title for title, _ in QUERIES])
def test_a_query_answers_the_same_in_both_databases(engines: dict[str, Engine], query: str) -> None:
    selected = re.findall(r"(?:AS )?(\w+)(?:,|$)", re.sub(r"\([^()]*\)", "", re.sub(r"\([^()]*\)", "", query.split("\nFROM ")[0])))

    (columns, rows), (others, other_rows) = (ask(engine, query) for engine in engines.values())

    assert columns == others == selected
    assert rows
    assert same(rows) == same(other_rows)


def test_the_hits_of_a_bucket_are_the_sum_of_its_ledger(engines: dict[str, Engine]) -> None:
    for engine in engines.values():
        _, rows = ask(engine, "SELECT hits, (SELECT sum(l.hits) FROM bucket_hits l WHERE l.bucket_id = v_buckets.id) FROM v_buckets")

        assert len(rows) > 20
        assert all(hits == ledger for hits, ledger in rows)


def test_a_campaign_is_the_sum_of_its_slices(engines: dict[str, Engine]) -> None:
    for engine in engines.values():
        _, ((cases, buckets_hit, new, hits),) = ask(engine, "SELECT cases, buckets, new_buckets, hits FROM v_campaigns")

        assert cases == 601
        assert buckets_hit == new == len(buckets(engine))
        assert hits == sum(row.hits for row in buckets(engine))


def test_a_slice_that_is_stored_again_adds_nothing(engines: dict[str, Engine]) -> None:
    bucket = NewBucket("on qemu", "divergence", "gs", "qemu", "intel", "engine", "c", "r", "e", "o", "t")
    case = NewCase(b"again", "snippets", "user", "intel", "")
    again = SliceResult(999, 1, 0.5, {}, {}, 0, {"on qemu": 5}, [NewFinding(bucket, case, "7.2", {}, {}, [])])
    for engine in engines.values():
        before = buckets(engine)

        save_slice(engine, 1, again)

        assert buckets(engine) == before
