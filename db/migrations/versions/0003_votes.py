"""Votes: what other engines did at the step of a bucket, and the verdict that follows."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "verdict",
        sa.Column("bucket_id", sa.Text(), nullable=False),
        sa.Column("verdict", sa.Text(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("expected", sa.Text(), nullable=False),
        sa.Column("case_digest", sa.Text(), nullable=False),
        sa.Column("judged_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["bucket_id"], ["bucket.id"], name=op.f("fk_verdict_bucket_id_bucket")),
        sa.ForeignKeyConstraint(["case_digest"], ["case.digest"], name=op.f("fk_verdict_case_digest_case")),
        sa.PrimaryKeyConstraint("bucket_id", name=op.f("pk_verdict")),
    )
    op.create_index(op.f("ix_verdict_verdict"), "verdict", ["verdict"])
    op.create_table(
        "vote",
        sa.Column("bucket_id", sa.Text(), nullable=False),
        sa.Column("engine", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("stance", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["bucket_id"], ["verdict.bucket_id"], name=op.f("fk_vote_bucket_id_verdict")),
        sa.PrimaryKeyConstraint("bucket_id", "engine", name=op.f("pk_vote")),
    )
