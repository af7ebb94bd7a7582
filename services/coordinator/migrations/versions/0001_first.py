"""The first schema: runs, rounds, updates, jobs, blobs, events, audit."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

Sequence = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "runs",
        sa.Column("id", sa.String, nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("reason", sa.String),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("terms", sa.Text, nullable=False),
        sa.Column("prepared", sa.Text),
        sa.Column("round", sa.Integer, nullable=False),
        sa.Column("failed_in_a_row", sa.Integer, nullable=False),
        sa.Column("published_round", sa.Integer, nullable=False),
        sa.Column("slm_adapter", sa.String),
        sa.Column("llm_adapter", sa.String),
        sa.Column("slm_loss", sa.Float),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_runs"),
    )
    op.create_table(
        "rounds",
        sa.Column("run_id", sa.String, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("reason", sa.String),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("slm_adapter", sa.String, nullable=False),
        sa.Column("llm_adapter", sa.String, nullable=False),
        sa.Column("aggregate", sa.String),
        sa.Column("slm_candidate", sa.String),
        sa.Column("llm_candidate", sa.String),
        sa.Column("scores", sa.Text),
        sa.Column("accepted", sa.Integer, nullable=False),
        sa.Column("refused", sa.Integer, nullable=False),
        sa.Column("late", sa.Integer, nullable=False),
        sa.Column("entered", sa.JSON, nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_rounds_run_id"),
        sa.PrimaryKeyConstraint("run_id", "number", name="pk_rounds"),
    )
    op.create_table(
        "blobs",
        sa.Column("digest", sa.String, nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("checksum", sa.String, nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_blobs"),
    )
    op.create_table(
        "updates",
        sa.Column("run_id", sa.String, nullable=False),
        sa.Column("round", sa.Integer, nullable=False),
        sa.Column("agent", sa.String, nullable=False),
        sa.Column("digest", sa.String, nullable=False),
        sa.Column("weight", sa.Integer, nullable=False),
        sa.Column("received_at", sa.Float, nullable=False),
        sa.ForeignKeyConstraint(["digest"], ["blobs.digest"], name="fk_updates_digest"),
        sa.PrimaryKeyConstraint("run_id", "round", "agent", name="pk_updates"),
    )
    op.create_table(
        "jobs",
        sa.Column("id", sa.String, nullable=False),
        sa.Column("run_id", sa.String, nullable=False),
        sa.Column("round", sa.Integer, nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("task", sa.Text, nullable=False),
        sa.Column("token", sa.Integer, nullable=False),
        sa.Column("principal", sa.String),
        sa.Column("worker", sa.String),
        sa.Column("result", sa.String),
        sa.Column("expires_at", sa.Float),
        sa.Column("renewed_at", sa.Float),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_jobs_run_id"),
        sa.PrimaryKeyConstraint("id", name="pk_jobs"),
    )
    op.create_table(
        "events",
        sa.Column("seq", Sequence, autoincrement=True, nullable=False),
        sa.Column("run_id", sa.String, nullable=False),
        sa.Column("round", sa.Integer),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("detail", sa.JSON, nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_events_run_id"),
        sa.PrimaryKeyConstraint("seq", name="pk_events"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_events_run_id", "events", ["run_id"])
    op.create_table(
        "audit",
        sa.Column("seq", Sequence, autoincrement=True, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("actor", sa.String, nullable=False),
        sa.Column("action", sa.String, nullable=False),
        sa.Column("subject", sa.String, nullable=False),
        sa.Column("detail", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_audit"),
        sqlite_autoincrement=True,
    )
