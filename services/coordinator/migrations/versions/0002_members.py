"""Members: who was invited, with which key they came, and what the operator's key says of it."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "members",
        sa.Column("name", sa.String, nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("key", sa.String),
        sa.Column("invitation", sa.String),
        sa.Column("invitation_expires_at", sa.Float),
        sa.Column("not_after", sa.Integer),
        sa.Column("signature", sa.String),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("changed_at", sa.Float, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_members"),
        sa.UniqueConstraint("invitation", name="uq_members_invitation"),
    )
