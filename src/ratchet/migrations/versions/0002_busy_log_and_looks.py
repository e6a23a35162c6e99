"""Eight-byte counters for the log and the labels, the ledger by action, and every look of the monitor."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Widen the counters, where they have four bytes, and their sequences with them."""
    if op.get_bind().dialect.name == "postgresql":
        for table in ("predictions", "labels"):
            op.alter_column(table, "seq", type_=sa.BigInteger(), existing_type=sa.Integer(), existing_nullable=False)
            op.execute(f"ALTER SEQUENCE {table}_seq_seq AS BIGINT")
    op.create_index("decisions_by_action", "decisions", ["problem", "action", "seq"], if_not_exists=True)
    op.create_table(
        "looks",
        sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("problem", sa.String(64), nullable=False),
        sa.Column("at", sa.DateTime, nullable=False),
        sa.Column("decision", sa.String(32), nullable=True),
        if_not_exists=True,
    )
    op.create_index("looks_by_problem", "looks", ["problem", "seq"], if_not_exists=True)
    # Alembic keeps the version from now on.
    op.drop_table("schema_version", if_exists=True)
