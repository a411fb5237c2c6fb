"""What somebody outside has been told of new buckets: each bucket has a mark of its own, so that none is lost, whoever stores it late."""

from collections.abc import Iterable
from datetime import UTC, datetime

from sqlalchemy import Engine, select

from db.models import Bucket, Webhook, WebhookTold
from db.queries import bucket_query, bucket_rows
from db.records import BucketRow
from db.store import insert_new
from db.transactions import writing


def begin_telling(engine: Engine, name: str, *, at: datetime | None = None) -> None:
    """From the first call on, `name` wants to be told of new buckets; later calls change nothing."""
    with writing(engine) as connection:
        connection.execute(insert_new(connection, Webhook).values(name=name, since=at or datetime.now(UTC)))


def untold(engine: Engine, name: str, limit: int) -> list[BucketRow]:
    """Buckets that `name` was not told of yet, oldest first; none for somebody who never asked."""
    told = select(WebhookTold.bucket_id).where(WebhookTold.name == name, WebhookTold.bucket_id == Bucket.id).exists()
    since = select(Webhook.since).where(Webhook.name == name).scalar_subquery()
    query = bucket_query(Bucket.hits).where(Bucket.first_seen >= since, ~told)
    return bucket_rows(engine, query.order_by(None).order_by(Bucket.first_seen, Bucket.id).limit(limit))


def mark_told(engine: Engine, name: str, bucket_ids: Iterable[str], *, at: datetime | None = None) -> None:
    """Note that `name` was told of these buckets."""
    now = at or datetime.now(UTC)
    rows = [{"name": name, "bucket_id": bucket_id, "told_at": now} for bucket_id in sorted(set(bucket_ids))]
    if rows:
        with writing(engine) as connection:
            connection.execute(insert_new(connection, WebhookTold), rows)
