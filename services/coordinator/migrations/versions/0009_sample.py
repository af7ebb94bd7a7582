"""Which members a round asks, where its run does not ask all."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.add_column("rounds", sa.Column("sample", sa.JSON))
