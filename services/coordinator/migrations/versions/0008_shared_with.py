"""Which agents may fetch a round's aggregate, where its run shares it."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.add_column("rounds", sa.Column("shared_with", sa.JSON))
