"""The first tables: ledger, route, log, labels."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables. SQLite has no transaction around this: what a cut-off start left is kept."""
    op.create_table(
        "decisions",
        sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("problem", sa.String(64), nullable=False),
        sa.Column("at", sa.DateTime, nullable=False),
        sa.Column("action", sa.String(32), nullable=False),
        sa.Column("subject", sa.String(128), nullable=False),
        sa.Column("reasons", sa.JSON, nullable=False),
        sa.Column("evidence", sa.JSON, nullable=False),
        sa.Column("by", sa.String(64), nullable=False),
        sa.UniqueConstraint("problem", "id"),
        if_not_exists=True,
    )
    op.create_table(
        "routes",
        sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("problem", sa.String(64), nullable=False),
        sa.Column("at", sa.DateTime, nullable=False),
        sa.Column("champion", sa.String(32), nullable=False),
        sa.Column("decision", sa.String(32), nullable=False),
        sa.Column("verified", sa.Boolean, nullable=False),
        if_not_exists=True,
    )
    op.create_index("ix_routes_problem", "routes", ["problem"], if_not_exists=True)
    op.create_table(
        "predictions",
        sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String(32), nullable=False, unique=True),
        sa.Column("problem", sa.String(64), nullable=False),
        sa.Column("at", sa.DateTime, nullable=False),
        sa.Column("version", sa.String(32), nullable=False),
        sa.Column("variant", sa.String(16), nullable=False),
        sa.Column("propensity", sa.Float, nullable=False),
        sa.Column("probability", sa.Float, nullable=False),
        sa.Column("label", sa.Integer, nullable=False),
        sa.Column("features", sa.Text, nullable=False),
        if_not_exists=True,
    )
    op.create_index("ix_predictions_at", "predictions", ["at"], if_not_exists=True)
    op.create_index("predictions_by_variant", "predictions", ["problem", "variant", "seq"], if_not_exists=True)
    op.create_table(
        "labels",
        sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("prediction_id", sa.String(32), nullable=False),
        sa.Column("at", sa.DateTime, nullable=False),
        sa.Column("value", sa.Integer, nullable=False),
        sa.Column("provenance", sa.String(64), nullable=False),
        if_not_exists=True,
    )
    op.create_index("labels_by_prediction", "labels", ["prediction_id", "seq"], if_not_exists=True)
