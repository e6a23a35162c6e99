"""The share of predictions that is drawn for an audit, from when on, and a way to the labels that audits brought."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Nothing was drawn before."""
    op.create_table(
        "draws",
        sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("problem", sa.String(64), nullable=False),
        sa.Column("at", sa.DateTime, nullable=False),
        sa.Column("share", sa.Float, nullable=False),
        sa.Column("since", sa.BigInteger, nullable=False),
        sa.Column("decision", sa.String(32)),
        if_not_exists=True,
    )
    op.create_index("draws_by_problem", "draws", ["problem", "seq"], if_not_exists=True)
    brought = sa.text("provenance = 'audit'")
    op.create_index("labels_audited", "labels", ["at", "prediction_id"], if_not_exists=True, sqlite_where=brought, postgresql_where=brought)
