"""Labels that were sent of predictions that nobody made."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Of those that came before nobody knows."""
    op.create_table(
        "strays",
        sa.Column("problem", sa.String(64), primary_key=True),
        sa.Column("prediction_id", sa.String(64), primary_key=True),
        sa.Column("at", sa.DateTime, nullable=False),
        if_not_exists=True,
    )
    op.create_index("strays_by_problem", "strays", ["problem", "at"], if_not_exists=True)
