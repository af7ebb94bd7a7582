"""The tables, as SQLAlchemy sees them; ``migrations/`` makes them, and a test holds the two together.

Columns are plain (text, integers, floats, JSON), so that the same schema serves SQLite and PostgreSQL. The protocol's
messages are kept as the text that they travel as.
"""

from sqlalchemy import JSON, BigInteger, Column, Float, ForeignKey, Integer, MetaData, String, Table, Text

metadata = MetaData(
    naming_convention={
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
        "ix": "ix_%(column_0_label)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
    }
)

# A sequence that grows by itself: SQLite does so for INTEGER primary keys alone.
Sequence = BigInteger().with_variant(Integer, "sqlite")

runs = Table(
    "runs",
    metadata,
    Column("id", String, primary_key=True),
    Column("state", String, nullable=False),
    Column("reason", String),
    Column("version", Integer, nullable=False),
    Column("terms", Text, nullable=False),
    Column("prepared", Text),
    Column("signature", String),
    Column("round", Integer, nullable=False),
    Column("failed_in_a_row", Integer, nullable=False),
    Column("published_round", Integer, nullable=False),
    Column("slm_adapter", String),
    Column("llm_adapter", String),
    Column("slm_loss", Float),
    Column("created_at", Float, nullable=False),
)

rounds = Table(
    "rounds",
    metadata,
    Column("run_id", ForeignKey("runs.id"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("state", String, nullable=False),
    Column("reason", String),
    Column("version", Integer, nullable=False),
    Column("slm_adapter", String, nullable=False),
    Column("llm_adapter", String, nullable=False),
    Column("aggregate", String),
    Column("slm_candidate", String),
    Column("llm_candidate", String),
    Column("scores", Text),
    Column("accepted", Integer, nullable=False),
    Column("refused", Integer, nullable=False),
    Column("late", Integer, nullable=False),
    Column("attempt", Integer, nullable=False, server_default="0"),
    Column("total_count", Integer),
    Column("error_bound", Float),
    Column("evaluation", Text),
    Column("entered", JSON, nullable=False),
    Column("restarted", JSON, nullable=False, server_default="{}"),
    Column("shared_with", JSON(none_as_null=True)),
    Column("sample", JSON(none_as_null=True)),
)

updates = Table(
    "updates",
    metadata,
    Column("run_id", String, primary_key=True),
    Column("round", Integer, primary_key=True),
    Column("agent", String, primary_key=True),
    Column("digest", ForeignKey("blobs.digest"), nullable=False),
    Column("weight", Integer, nullable=False),
    Column("received_at", Float, nullable=False),
)

ready = Table(
    "ready",
    metadata,
    Column("run_id", String, primary_key=True),
    Column("round", Integer, primary_key=True),
    Column("agent", String, primary_key=True),
    Column("barred", Text),
    Column("group", Integer),
)

attempts = Table(
    "attempts",
    metadata,
    Column("run_id", String, primary_key=True),
    Column("round", Integer, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("group", Integer, primary_key=True),
    Column("terms", Text, nullable=False),
    Column("members", JSON, nullable=False),
    Column("roster", Text),
    Column("dealers", JSON),
    Column("survivors", JSON),
    Column("signers", JSON),
)

attempt_messages = Table(
    "attempt_messages",
    metadata,
    Column("run_id", String, primary_key=True),
    Column("round", Integer, primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("stage", String, primary_key=True),
    Column("agent", String, primary_key=True),
    Column("body", Text, nullable=False),
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", String, primary_key=True),
    Column("run_id", ForeignKey("runs.id"), nullable=False),
    Column("round", Integer, nullable=False),
    Column("state", String, nullable=False),
    Column("version", Integer, nullable=False),
    Column("task", Text, nullable=False),
    Column("token", Integer, nullable=False),
    Column("principal", String),
    Column("worker", String),
    Column("result", String),
    Column("expires_at", Float),
    Column("renewed_at", Float),
    Column("created_at", Float, nullable=False),
)

blobs = Table(
    "blobs",
    metadata,
    Column("digest", String, primary_key=True),
    Column("bytes", BigInteger, nullable=False),
    Column("checksum", String, nullable=False),
)

events = Table(
    "events",
    metadata,
    Column("seq", Sequence, primary_key=True, autoincrement=True),
    Column("run_id", ForeignKey("runs.id"), nullable=False, index=True),
    Column("round", Integer),
    Column("at", Float, nullable=False),
    Column("kind", String, nullable=False),
    Column("detail", JSON, nullable=False),
    sqlite_autoincrement=True,
)

# One row or none: the adapter that an operator has chosen for the agents, who hold the newest without it.
promotions = Table(
    "promotions",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("run_id", ForeignKey("runs.id"), nullable=False),
    Column("round", Integer, nullable=False),
    Column("digest", ForeignKey("blobs.digest"), nullable=False),
)

members = Table(
    "members",
    metadata,
    Column("name", String, primary_key=True),
    Column("state", String, nullable=False),
    Column("version", Integer, nullable=False),
    Column("key", String),
    Column("invitation", String, unique=True),
    Column("invitation_expires_at", Float),
    Column("not_after", Integer),
    Column("signature", String),
    Column("created_at", Float, nullable=False),
    Column("changed_at", Float, nullable=False),
)

# Its numbers have no gaps, because the chain chooses them (``Rows.audit``).
audit = Table(
    "audit",
    metadata,
    Column("seq", Sequence, primary_key=True, autoincrement=False),
    Column("at", Float, nullable=False),
    Column("actor", String, nullable=False),
    Column("action", String, nullable=False),
    Column("subject", String, nullable=False),
    Column("detail", Text, nullable=False),
    Column("previous", String, nullable=False),
    Column("hash", String, nullable=False),
)
