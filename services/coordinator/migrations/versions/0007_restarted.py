"""When a round's state began anew for what ends it, beside when it was entered."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.add_column("rounds", sa.Column("restarted", sa.JSON, nullable=False, server_default="{}"))
