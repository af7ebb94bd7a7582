"""The audit log becomes a chain: the entries that there are get numbers without gaps, and hashes."""

import json

import sqlalchemy as sa
from alembic import op

from shared.protocol.audit import NOTHING, AuditEntry, sealed

revision = "0003"
down_revision = "0002"

Sequence = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.rename_table("audit", "audit_before")
    chain = op.create_table(
        "audit",
        sa.Column("seq", Sequence, autoincrement=False, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("actor", sa.String, nullable=False),
        sa.Column("action", sa.String, nullable=False),
        sa.Column("subject", sa.String, nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
        sa.Column("previous", sa.String, nullable=False),
        sa.Column("hash", sa.String, nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_audit"),
    )
    before = sa.table(
        "audit_before", *(sa.column(name) for name in ("seq", "at", "actor", "action", "subject", "detail"))
    )
    seq, previous = 0, NOTHING
    for row in op.get_bind().execute(sa.select(before).order_by(before.c.seq)).mappings().all():
        line = {**row, "seq": seq + 1, "detail": json.loads(row["detail"]), "previous": previous}
        entry = sealed(AuditEntry.model_validate(line))
        op.get_bind().execute(chain.insert(), entry.model_dump() | {"detail": row["detail"]})
        seq, previous = entry.seq, entry.hash
    op.drop_table("audit_before")
