"""Querying: a bucket's hits and findings beside it, and what the webhook has been told. The views are made after every step."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

_SUMS = """
    UPDATE bucket SET
        hits = (SELECT coalesce(sum(bucket_hits.hits), 0) FROM bucket_hits WHERE bucket_id = bucket.id),
        findings = (SELECT count(*) FROM finding WHERE bucket_id = bucket.id)
    """


def upgrade() -> None:
    for name in ("hits", "findings"):
        op.add_column("bucket", sa.Column(name, sa.BigInteger(), server_default="0", nullable=False))
    op.execute(_SUMS)
    op.create_table(
        "webhook",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_webhook")),
    )
    op.create_table(
        "webhook_told",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("bucket_id", sa.Text(), nullable=False),
        sa.Column("told_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["name"], ["webhook.name"], name=op.f("fk_webhook_told_name_webhook")),
        sa.PrimaryKeyConstraint("name", "bucket_id", name=op.f("pk_webhook_told")),
    )
