"""Which members a round asks, where its run does not ask all; and which group of its attempt each agent is in."""

import json

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.add_column("rounds", sa.Column("sample", sa.JSON))
    op.add_column("ready", sa.Column("group", sa.Integer))
    # An attempt that goes on while the release changes goes on.
    connection = op.get_bind()
    under_way = connection.exec_driver_sql(
        'SELECT a.run_id, a.round, a."group", a.members FROM attempts a '
        "JOIN rounds r ON r.run_id = a.run_id AND r.number = a.round AND r.attempt = a.number"
    ).fetchall()
    for run_id, number, group, members in under_way:
        for agent in json.loads(members):
            connection.execute(
                sa.text('UPDATE ready SET "group" = :group WHERE run_id = :run AND round = :round AND agent = :agent'),
                {"group": group, "run": run_id, "round": number, "agent": agent},
            )
