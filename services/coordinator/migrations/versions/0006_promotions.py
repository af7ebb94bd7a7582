"""The adapter that an operator has chosen for the agents, where it is not the newest."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.create_table(
        "promotions",
        sa.Column("id", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("run_id", sa.String, nullable=False),
        sa.Column("round", sa.Integer, nullable=False),
        sa.Column("digest", sa.String, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_promotions"),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_promotions_run_id"),
        sa.ForeignKeyConstraint(["digest"], ["blobs.digest"], name="fk_promotions_digest"),
    )
