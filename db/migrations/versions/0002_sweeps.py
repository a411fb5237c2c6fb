"""Sweeps: every event at every boundary of every path; and findings that are the entry code's doing."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


_BY = "\"by\" IN ('engine', 'adapter', 'entry code')"


def upgrade() -> None:
    _let_entry_code_be_named()
    op.create_table(
        "sweep",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("campaign_id", sa.Integer(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("paths", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["campaign_id"], ["campaign.id"], name=op.f("fk_sweep_campaign_id_campaign")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sweep")),
        sa.UniqueConstraint("campaign_id", name=op.f("uq_sweep_campaign_id")),
    )
    op.create_index(op.f("ix_sweep_key"), "sweep", ["key"])
    op.create_table(
        "sweep_path",
        sa.Column("sweep_id", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("scenario", sa.Text(), nullable=False),
        sa.Column("profile", sa.Text(), nullable=False),
        sa.Column("start", sa.Text(), nullable=False),
        sa.Column("boundaries", sa.Integer(), nullable=False),
        sa.Column("cells", sa.JSON(), nullable=False),
        sa.Column("runs", sa.BigInteger(), nullable=False),
        sa.Column("merged", sa.BigInteger(), nullable=False),
        sa.Column("contract_violations", sa.BigInteger(), nullable=False),
        sa.Column("divergences", sa.BigInteger(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["sweep_id"], ["sweep.id"], name=op.f("fk_sweep_path_sweep_id_sweep")),
        sa.PrimaryKeyConstraint("sweep_id", "number", name=op.f("pk_sweep_path")),
        sa.UniqueConstraint("sweep_id", "scenario", "profile", name=op.f("uq_sweep_path_sweep_id_scenario_profile")),
    )


def _let_entry_code_be_named() -> None:
    with op.batch_alter_table("bucket") as bucket:
        bucket.drop_constraint(op.f("ck_bucket_by"), type_="check")
        bucket.create_check_constraint(op.f("ck_bucket_by"), _BY)
