"""A challenger's share and a shadow beside the champion, and the interval that was told with each probability."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

ADDED: dict[str, list[tuple[str, Any]]] = {
    "routes": [("challenger", sa.String(32)), ("share", sa.Float()), ("shadow", sa.String(32))],
    "predictions": [("low", sa.Float()), ("high", sa.Float())],
}


def upgrade() -> None:
    """The new columns stay empty in old rows: nobody was told an interval, nobody else was routed to."""
    inspector = sa.inspect(op.get_bind())
    for table, columns in ADDED.items():
        # SQLite has no transaction around this: what a cut-off start added is there already.
        there = {column["name"] for column in inspector.get_columns(table)}
        for name, kind in columns:
            if name not in there:
                op.add_column(table, sa.Column(name, kind, nullable=True))
    op.create_table(
        "shadows",
        sa.Column("prediction_id", sa.String(32), primary_key=True),
        sa.Column("version", sa.String(32), primary_key=True),
        sa.Column("at", sa.DateTime, nullable=False),
        sa.Column("probability", sa.Float, nullable=False),
        sa.Column("label", sa.Integer, nullable=False),
        if_not_exists=True,
    )
