"""How long `divergences list` takes with 1,000,000 findings in PostgreSQL, filter by filter, with the plans of its queries.

    python benchmarks/divergences_list.py postgresql://user@host/an-empty-database [--findings N] [--plans FILE]

The database is filled by bulk, then asked through the function that the command asks.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, event

from db.engine import open_database
from db.queries import buckets
from db.transactions import reading, writing

BUCKETS = 2_000
CASES_OF_A_SLICE = 20_000
KEPT = 10
"""Examples of a bucket that a campaign keeps."""
NOW = datetime.now(UTC)
RUNS = 15

FILTERS: dict[str, dict[str, Any]] = {
    "no filter": {},
    "area gs": {"area": "gs"},
    "area fault": {"area": "fault"},
    "kind divergence": {"kind": "divergence"},
    "kind crash": {"kind": "crash"},
    "core unicorn": {"core": "unicorn"},
    "core bochs": {"core": "bochs"},
    "profile intel": {"profile": "intel"},
    "target linux4": {"target": "linux4"},
    "target snippets": {"target": "snippets"},
    "since 1 day": {"since": NOW - timedelta(days=1)},
    "since 30 days": {"since": NOW - timedelta(days=30)},
    "status open": {"status": "open"},
    "status reported": {"status": "reported"},
    "verdict engine-defect": {"verdict": "engine-defect"},
    "verdict disputed": {"verdict": "disputed"},
    "limit 20": {"limit": 20},
    "area fault, core unicorn, verdict engine-defect, limit 20": {
        "area": "fault", "core": "unicorn", "verdict": "engine-defect", "limit": 20,
    },
}  # fmt: skip

# Few buckets are hit often and many rarely: bucket b (from 0) has a share that falls with b, and a campaign sees it with that probability.
FILL = [
    """INSERT INTO bucket (id, signature, kind, area, core, profile, "by", cause, rule, expected, observed, title, status, first_seen,
            last_seen)
        SELECT left(encode(sha256(b::text::bytea), 'hex'), 12), 'signature ' || b || repeat(' | of usual length', 6),
            CASE WHEN b % 50 = 0 THEN 'crash' WHEN b % 77 = 0 THEN 'hang' WHEN b % 10 = 3 THEN 'contract' ELSE 'divergence' END,
            (ARRAY['fault', 'fault', 'fault', 'fault', 'flags', 'flags', 'control', 'stack', 'gs', 'other'])[1 + b % 10],
            (ARRAY['unicorn', 'unicorn', 'qemu', 'bochs'])[1 + b / 10 % 4],
            (ARRAY['intel', 'amd', 'intel-2012', 'intel-2010', 'intel-pti'])[1 + b / 40 % 5],
            CASE WHEN b % 10 = 3 THEN 'entry code' WHEN b % 7 = 0 THEN 'adapter' ELSE 'engine' END,
            'instruction ' || b / 5, 'SDM Vol. 2A, a rule ' || b / 5, '#GP(0)', 'completes', 'instruction ' || b / 5 || ': a title',
            CASE WHEN b % 5 = 0 THEN 'reported' ELSE 'open' END, now() - interval '300 days' * b / {buckets},
            now() - interval '60 days' * b / {buckets}
        FROM generate_series(0, {buckets} - 1) b""",
    """INSERT INTO campaign (created_at, finished_at, targets, core, core_version, profiles, seed, slice_cases, arguments)
        SELECT now() - interval '1 day' * c, now(), '["linux4", "snippets"]', 'unicorn', '2.1.4', '["intel"]', c::text, 20000, '{{}}'
        FROM generate_series(1, {campaigns}) c""",
    """INSERT INTO slice (campaign_id, number, cases, seconds, not_modelled, tolerated, crashes)
        SELECT c, n, 20000, 120, '{{"VERW": 31, "undefined flags": 200}}', '{{"undefined-af-after-and": 950}}', 0
        FROM generate_series(1, {campaigns}) c, generate_series(0, 29) n""",
    """CREATE TEMPORARY TABLE ranked AS SELECT id, row_number() OVER (ORDER BY signature) - 1 AS rank, core, profile FROM bucket""",
    """INSERT INTO bucket_hits (slice_id, bucket_id, hits)
        SELECT s.id, r.id, 1 + 400 / (1 + r.rank) FROM slice s JOIN ranked r ON random() < 60.0 / (60 + r.rank)""",
    """INSERT INTO "case" (digest, bytes, target, scenario, profile, instance)
        SELECT encode(sha256(n::text::bytea), 'hex'), decode(repeat(encode(sha256(n::text::bytea), 'hex'), 3), 'hex'),
            CASE WHEN n % 3 = 0 THEN 'snippets' ELSE 'linux4' END, 'user', 'intel', 'push rax at 0x400000, boundary 0'
        FROM generate_series(1, {findings}) n""",
    """INSERT INTO finding (bucket_id, case_digest, core, core_version, campaign_id, spec, observed, differences, found_at)
        SELECT r.id, encode(sha256(n::text::bytea), 'hex'), r.core, '2.1.4', 1 + n / ({buckets} * {kept}),
            json_build_object('end', 'ended', 'registers', repeat('0x0 ', 150)), json_build_object('end', 'ended', 'registers',
            repeat('0x1 ', 150)), '["rsp", "rip"]', now() - interval '1 second' * n
        FROM generate_series(1, {findings}) n JOIN ranked r ON r.rank = n % {buckets}""",
    """INSERT INTO bucket_target (bucket_id, target)
        SELECT id, t FROM ranked, unnest(ARRAY['linux4', 'snippets']) t WHERE rank % 3 <> 0 OR t = 'linux4'""",
    """INSERT INTO verdict (bucket_id, verdict, why, expected, case_digest, judged_at)
        SELECT DISTINCT ON (r.id) r.id, CASE WHEN r.rank % 12 = 0 THEN 'disputed' ELSE 'engine-defect' END, 'why', '#GP(0)',
            encode(sha256((r.rank + {buckets})::text::bytea), 'hex'), now()
        FROM ranked r WHERE r.rank % 8 <> 0""",
    """UPDATE bucket SET hits = (SELECT coalesce(sum(hits), 0) FROM bucket_hits WHERE bucket_id = bucket.id),
        findings = (SELECT count(*) FROM finding WHERE bucket_id = bucket.id)""",
]


def fill(engine: Engine, findings: int) -> None:
    campaigns = findings // (BUCKETS * KEPT) + 1
    with writing(engine) as connection:
        for statement in FILL:
            begun = time.monotonic()
            text = statement.format(buckets=BUCKETS, campaigns=campaigns, findings=findings, kept=KEPT)
            connection.exec_driver_sql(text.replace("%", "%%"))
            print(f"  {time.monotonic() - begun:6.1f} s  {' '.join(statement.split())[:60]}")


def tidy(engine: Engine) -> None:
    """What the server does by itself within minutes."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("VACUUM ANALYZE")


def measure(engine: Engine, asked: dict[str, Any]) -> tuple[int, list[float]]:
    rows = len(buckets(engine, **asked))
    times = []
    for _ in range(RUNS):
        begun = time.perf_counter()
        buckets(engine, **asked)
        times.append((time.perf_counter() - begun) * 1000)
    return rows, times


def plan(engine: Engine, asked: dict[str, Any]) -> str:
    """EXPLAIN (ANALYZE) of the statement that the function sends."""
    sent: list[tuple[str, Any]] = []

    def listen(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_rest: Any) -> None:
        sent.append((statement, parameters))

    event.listen(engine, "before_cursor_execute", listen)
    buckets(engine, **asked)
    event.remove(engine, "before_cursor_execute", listen)
    statement, parameters = sent[-1]
    with reading(engine) as connection:
        return "\n".join(row[0] for row in connection.exec_driver_sql(f"EXPLAIN (ANALYZE, BUFFERS) {statement}", parameters))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("database", help="URL of an empty PostgreSQL database, or of one that this filled before")
    parser.add_argument("--findings", type=int, default=1_000_000)
    parser.add_argument("--plans", type=Path, help="write the plans here")
    options = parser.parse_args()
    engine = open_database(options.database)
    if not buckets(engine, limit=1):
        fill(engine, options.findings)
    tidy(engine)
    with reading(engine) as connection:
        names = ("bucket", "finding", "bucket_hits", "slice", "campaign")
        sizes = {name: connection.exec_driver_sql(f"SELECT count(*) FROM {name}").scalar_one() for name in names}
    print(", ".join(f"{name} {size:,}" for name, size in sizes.items()))
    print("| filter | buckets | median ms | maximum ms |\n|---|---|---|---|")
    measured = {}
    for name, asked in FILTERS.items():
        rows, times = measure(engine, asked)
        measured[name] = {"rows": rows, "median_ms": round(statistics.median(times), 1), "max_ms": round(max(times), 1)}
        print(f"| {name} | {rows} | {measured[name]['median_ms']} | {measured[name]['max_ms']} |")
    if options.plans:
        options.plans.write_text("\n\n".join(f"-- {name}\n{plan(engine, asked)}" for name, asked in FILTERS.items()) + "\n")
    print(json.dumps({"sizes": sizes, "runs": RUNS, "slowest_ms": max(each["max_ms"] for each in measured.values()), "filters": measured}))


if __name__ == "__main__":
    main()
