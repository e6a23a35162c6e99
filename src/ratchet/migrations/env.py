"""How does Alembic run a step? On the connection, and in the transaction, that schema.migrate hands it."""

from __future__ import annotations

from alembic import context

context.configure(connection=context.config.attributes["connection"])
with context.begin_transaction():
    context.run_migrations()
