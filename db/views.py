"""The views for people who ask in SQL (docs/querying.md). Columns are added, never renamed or taken out.

They are no part of the history of the schema: every migration takes them out, for no database changes a table under a view, and makes
them anew from here. Whoever changes this file adds a step to the history, so that databases come round.
"""

from collections.abc import Mapping

from sqlalchemy import Connection, inspect, text

_WORDS: Mapping[str, Mapping[str, str]] = {
    "sqlite": {
        "joined": "group_concat",
        "array": "json_each",
        "object": "json_each",
        "hours": "CAST((julianday('now') - julianday(b.first_seen)) * 24 AS DOUBLE PRECISION)",
    },
    "postgresql": {
        "joined": "string_agg",
        "array": "json_array_elements_text",
        "object": "json_each_text",
        "hours": "CAST(extract(epoch FROM now() - b.first_seen) / 3600 AS DOUBLE PRECISION)",
    },
}
"""What the two databases call by different names."""

VIEWS: Mapping[str, str] = {
    "v_buckets": """
        SELECT b.id, b.title, b.kind, b.area, b.core, b.profile, b."by", b.cause, b.rule, b.expected, b.observed, b.status,
            v.verdict, v.why, v.judged_at, b.hits, b.findings,
            (SELECT {joined}(t.target, ', ') FROM (SELECT target FROM bucket_target WHERE bucket_id = b.id ORDER BY target) t) AS targets,
            b.first_seen, b.last_seen, {hours} AS age_hours, b.signature
        FROM bucket b LEFT JOIN verdict v ON v.bucket_id = b.id
        """,
    "v_findings": """
        SELECT f.id, f.bucket_id, b.title, b.kind, b.area, f.core, f.core_version, b.profile, b."by", b.cause, b.status, v.verdict,
            f.campaign_id, f.case_digest, c.target, c.scenario, c.instance, length(c.bytes) AS case_bytes,
            f.spec, f.observed, f.differences, f.found_at
        FROM finding f JOIN bucket b ON b.id = f.bucket_id JOIN "case" c ON c.digest = f.case_digest
            LEFT JOIN verdict v ON v.bucket_id = b.id
        """,
    "v_campaigns": """
        SELECT c.id, c.core, c.core_version, (SELECT {joined}(value, ', ') FROM {array}(c.targets)) AS targets,
            (SELECT {joined}(value, ', ') FROM {array}(c.profiles)) AS profiles,
            c.seed, c.created_at, c.finished_at,
            coalesce(s.slices, 0) AS slices, coalesce(s.cases, 0) AS cases, coalesce(s.seconds, 0.0) AS seconds,
            coalesce(s.not_modelled, 0) AS not_modelled, coalesce(s.tolerated, 0) AS tolerated, coalesce(s.crashes, 0) AS crashes,
            coalesce(h.hits, 0) AS hits, coalesce(h.buckets, 0) AS buckets, coalesce(n.buckets, 0) AS new_buckets
        FROM campaign c
            LEFT JOIN (
                SELECT campaign_id, count(*) AS slices, CAST(sum(cases) AS BIGINT) AS cases, sum(seconds) AS seconds,
                    CAST(sum((SELECT coalesce(sum(CAST(value AS BIGINT)), 0) FROM {object}(slice.not_modelled))) AS BIGINT) AS not_modelled,
                    CAST(sum((SELECT coalesce(sum(CAST(value AS BIGINT)), 0) FROM {object}(slice.tolerated))) AS BIGINT) AS tolerated,
                    CAST(sum(crashes) AS BIGINT) AS crashes
                FROM slice GROUP BY campaign_id
            ) s ON s.campaign_id = c.id
            LEFT JOIN (
                SELECT slice.campaign_id, CAST(sum(l.hits) AS BIGINT) AS hits, count(DISTINCT l.bucket_id) AS buckets
                FROM bucket_hits l JOIN slice ON slice.id = l.slice_id GROUP BY slice.campaign_id
            ) h ON h.campaign_id = c.id
            LEFT JOIN (
                SELECT slice.campaign_id, count(*) AS buckets
                FROM (SELECT min(slice_id) AS slice_id FROM bucket_hits GROUP BY bucket_id) first
                    JOIN slice ON slice.id = first.slice_id GROUP BY slice.campaign_id
            ) n ON n.campaign_id = c.id
        """,
    "v_votes": """
        SELECT o.bucket_id, b.title, b.area, b.core, b.profile, b."by", b.cause, v.verdict, o.engine, o.version, o.stance, o.outcome,
            v.judged_at
        FROM vote o JOIN verdict v ON v.bucket_id = o.bucket_id JOIN bucket b ON b.id = o.bucket_id
        """,
    "v_reasons": """
        SELECT slice.campaign_id, 'not modelled' AS kind, r.key AS reason, CAST(sum(CAST(r.value AS BIGINT)) AS BIGINT) AS cases
        FROM slice, {object}(slice.not_modelled) r GROUP BY slice.campaign_id, r.key
        UNION ALL
        SELECT slice.campaign_id, 'tolerated', r.key, CAST(sum(CAST(r.value AS BIGINT)) AS BIGINT)
        FROM slice, {object}(slice.tolerated) r GROUP BY slice.campaign_id, r.key
        """,
}


def drop_views(connection: Connection) -> None:
    """Take the views out, as far as they are there."""
    for name in sorted(set(VIEWS) & set(inspect(connection).get_view_names())):
        connection.execute(text(f"DROP VIEW {name}"))


def create_views(connection: Connection) -> None:
    """Make the views, which are not there."""
    words = _WORDS[connection.dialect.name]
    for name, query in VIEWS.items():
        # Not through the parser of named parameters: the text is ours, whole.
        connection.exec_driver_sql(f"CREATE VIEW {name} AS {query.format(**words)}")
