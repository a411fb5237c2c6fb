"""What happens by itself: runs of the timetable, replays, and the life of a bucket."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    with op.batch_alter_table("bucket") as batch:
        batch.add_column(sa.Column("fixed_version", sa.Text(), nullable=True))
        batch.add_column(sa.Column("fixed_at", sa.DateTime(timezone=True), nullable=True))
    op.create_table(
        "nightly_run",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("job", sa.Text(), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_nightly_run")),
        sa.UniqueConstraint("name", "due_at", name=op.f("uq_nightly_run_name_due_at")),
    )
    op.create_table(
        "nightly_campaign",
        sa.Column("campaign_id", sa.Integer(), nullable=False),
        sa.Column("run_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["campaign_id"], ["campaign.id"], name=op.f("fk_nightly_campaign_campaign_id_campaign")),
        sa.ForeignKeyConstraint(["run_id"], ["nightly_run.id"], name=op.f("fk_nightly_campaign_run_id_nightly_run")),
        sa.PrimaryKeyConstraint("campaign_id", name=op.f("pk_nightly_campaign")),
    )
    op.create_index(op.f("ix_nightly_campaign_run_id"), "nightly_campaign", ["run_id"])
    op.create_table(
        "bucket_replay",
        sa.Column("bucket_id", sa.Text(), nullable=False),
        sa.Column("core_version", sa.Text(), nullable=False),
        sa.Column("campaign_id", sa.Integer(), nullable=False),
        sa.Column("shown", sa.Integer(), nullable=False),
        sa.Column("gone", sa.Integer(), nullable=False),
        sa.Column("untold", sa.Integer(), nullable=False),
        sa.Column("replayed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("shown_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["bucket_id"], ["bucket.id"], name=op.f("fk_bucket_replay_bucket_id_bucket")),
        sa.ForeignKeyConstraint(["campaign_id"], ["campaign.id"], name=op.f("fk_bucket_replay_campaign_id_campaign")),
        sa.PrimaryKeyConstraint("bucket_id", "core_version", name=op.f("pk_bucket_replay")),
    )
    op.create_table(
        "status_change",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("bucket_id", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("core_version", sa.Text(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("campaign_id", sa.Integer(), nullable=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["bucket_id"], ["bucket.id"], name=op.f("fk_status_change_bucket_id_bucket")),
        sa.ForeignKeyConstraint(["campaign_id"], ["campaign.id"], name=op.f("fk_status_change_campaign_id_campaign")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_status_change")),
    )
    op.create_index(op.f("ix_status_change_bucket_id"), "status_change", ["bucket_id"])
