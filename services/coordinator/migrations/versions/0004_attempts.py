"""Secure aggregation: who is ready, the attempts of a round, and the messages of their stages."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("rounds", sa.Column("attempt", sa.Integer, nullable=False, server_default="0"))
    op.add_column("rounds", sa.Column("total_count", sa.Integer))
    op.add_column("rounds", sa.Column("error_bound", sa.Float))
    op.add_column("rounds", sa.Column("evaluation", sa.Text))
    op.create_table(
        "ready",
        sa.Column("run_id", sa.String, nullable=False),
        sa.Column("round", sa.Integer, nullable=False),
        sa.Column("agent", sa.String, nullable=False),
        sa.Column("barred", sa.Text),
        sa.PrimaryKeyConstraint("run_id", "round", "agent", name="pk_ready"),
    )
    op.create_table(
        "attempts",
        sa.Column("run_id", sa.String, nullable=False),
        sa.Column("round", sa.Integer, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("group", sa.Integer, nullable=False),
        sa.Column("terms", sa.Text, nullable=False),
        sa.Column("members", sa.JSON, nullable=False),
        sa.Column("roster", sa.Text),
        sa.Column("dealers", sa.JSON),
        sa.Column("survivors", sa.JSON),
        sa.Column("signers", sa.JSON),
        sa.PrimaryKeyConstraint("run_id", "round", "number", "group", name="pk_attempts"),
    )
    op.create_table(
        "attempt_messages",
        sa.Column("run_id", sa.String, nullable=False),
        sa.Column("round", sa.Integer, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("stage", sa.String, nullable=False),
        sa.Column("agent", sa.String, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("run_id", "round", "attempt", "stage", "agent", name="pk_attempt_messages"),
    )
