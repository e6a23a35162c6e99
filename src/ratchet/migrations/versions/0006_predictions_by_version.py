"""A way to a version's own predictions, however many another one has answered before."""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """No row changes."""
    op.create_index("predictions_by_version", "predictions", ["problem", "version", "variant", "seq"], if_not_exists=True)
