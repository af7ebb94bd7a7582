"""Jobs know whose lease they are under, and whether its holder was heard of since."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("principal", sa.String))
    op.add_column("jobs", sa.Column("renewed_at", sa.Float))
