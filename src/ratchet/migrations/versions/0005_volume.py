"""How far each look at the log saw, and how many live predictions had come since the one before."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Of looks of before nobody knows."""
    there = {column["name"] for column in sa.inspect(op.get_bind()).get_columns("looks")}
    for column in (sa.Column("place", sa.BigInteger), sa.Column("rows", sa.Integer)):
        if column.name not in there:
            op.add_column("looks", column)
