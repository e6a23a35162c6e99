"""Which tables does the store have, and how does an older one become today's?

The tables are declared here for queries; `migrations/` holds the steps that make and change them (Alembic).
"""

from __future__ import annotations

import sqlalchemy as sa

from ratchet.audit import AUDIT
from ratchet.errors import StoreError

# The newest step in migrations/versions.
HEAD = "0007"
KNOWN = ("0001", "0002", "0003", "0004", "0005", "0006", "0007")
metadata = sa.MetaData()
BY_AUDIT = sa.text(f"provenance = '{AUDIT}'")
# Four bytes count two thousand million predictions: a busy month. SQLite's own counter has eight in any case.
Sequence = sa.BigInteger().with_variant(sa.Integer, "sqlite")

decisions = sa.Table(
    "decisions",
    metadata,
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
    sa.Index("decisions_by_action", "problem", "action", "seq"),
)
routes = sa.Table(
    "routes",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("problem", sa.String(64), nullable=False, index=True),
    sa.Column("at", sa.DateTime, nullable=False),
    sa.Column("champion", sa.String(32), nullable=False),
    sa.Column("decision", sa.String(32), nullable=False),
    sa.Column("verified", sa.Boolean, nullable=False),
    sa.Column("challenger", sa.String(32)),
    sa.Column("share", sa.Float),
    sa.Column("shadow", sa.String(32)),
)
predictions = sa.Table(
    "predictions",
    metadata,
    sa.Column("seq", Sequence, primary_key=True, autoincrement=True),
    sa.Column("id", sa.String(32), nullable=False, unique=True),
    sa.Column("problem", sa.String(64), nullable=False),
    sa.Column("at", sa.DateTime, nullable=False, index=True),
    sa.Column("version", sa.String(32), nullable=False),
    sa.Column("variant", sa.String(16), nullable=False),
    sa.Column("propensity", sa.Float, nullable=False),
    sa.Column("probability", sa.Float, nullable=False),
    sa.Column("label", sa.Integer, nullable=False),
    sa.Column("features", sa.Text, nullable=False),
    sa.Column("low", sa.Float),
    sa.Column("high", sa.Float),
    sa.Index("predictions_by_variant", "problem", "variant", "seq"),
    # Of a young version the rows of the one before are not walked through.
    sa.Index("predictions_by_version", "problem", "version", "variant", "seq"),
)
# What a shadow would have answered. Nobody was told; the label is the prediction's.
shadows = sa.Table(
    "shadows",
    metadata,
    sa.Column("prediction_id", sa.String(32), primary_key=True),
    sa.Column("version", sa.String(32), primary_key=True),
    sa.Column("at", sa.DateTime, nullable=False),
    sa.Column("probability", sa.Float, nullable=False),
    sa.Column("label", sa.Integer, nullable=False),
)
labels = sa.Table(
    "labels",
    metadata,
    sa.Column("seq", Sequence, primary_key=True, autoincrement=True),
    sa.Column("prediction_id", sa.String(32), nullable=False),
    sa.Column("at", sa.DateTime, nullable=False),
    sa.Column("value", sa.Integer, nullable=False),
    sa.Column("provenance", sa.String(64), nullable=False),
    sa.Index("labels_by_prediction", "prediction_id", "seq"),
    # An index of the few that audits brought. SQLite takes it where a query says the same in so many words.
    sa.Index("labels_audited", "at", "prediction_id", sqlite_where=BY_AUDIT, postgresql_where=BY_AUDIT),
)
# What labels were sent of, though the log knew no such prediction; and when last.
strays = sa.Table(
    "strays",
    metadata,
    sa.Column("problem", sa.String(64), primary_key=True),
    sa.Column("prediction_id", sa.String(64), primary_key=True),
    sa.Column("at", sa.DateTime, nullable=False),
    sa.Index("strays_by_problem", "problem", "at"),
)
looks = sa.Table(
    "looks",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("problem", sa.String(64), nullable=False),
    sa.Column("at", sa.DateTime, nullable=False),
    sa.Column("decision", sa.String(32), nullable=True),
    # The newest live prediction, and how many there are since the look before.
    sa.Column("place", sa.BigInteger),
    sa.Column("rows", sa.Integer),
    sa.Index("looks_by_problem", "problem", "seq"),
)

# Which share of the predictions is drawn for an audit, from which of them on; the newest that holds for one goes before.
draws = sa.Table(
    "draws",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("problem", sa.String(64), nullable=False),
    sa.Column("at", sa.DateTime, nullable=False),
    sa.Column("share", sa.Float, nullable=False),
    sa.Column("since", sa.BigInteger, nullable=False),
    sa.Column("decision", sa.String(32)),
    sa.Index("draws_by_problem", "problem", "seq"),
)


def revision(connection: sa.Connection) -> str | None:
    """The revision of the tables behind a connection; None where there are none yet."""
    there = sa.inspect(connection).get_table_names()
    if "alembic_version" in there:
        found = connection.scalar(sa.text("SELECT version_num FROM alembic_version"))
        return str(found) if found is not None else None
    # The first stores wrote their version into a table of their own.
    return "0001" if "schema_version" in there else None


def require(connection: sa.Connection, url: str) -> None:
    """StoreError where the tables are not of today's revision: too old is to be migrated, too new is refused."""
    found = revision(connection)
    if found == HEAD:
        return
    if found is not None and found not in KNOWN:
        raise StoreError(
            f"The store {url} was written by a newer Ratchet (schema {found}; this one reads {HEAD}). Start that release again; nothing was changed."
        )
    raise StoreError(
        f"The store {url} has {'schema ' + found if found else 'no tables'}; this Ratchet reads {HEAD}. Run `ratchet migrate`."
    )


def migrate(connection: sa.Connection, url: str) -> str | None:
    """Bring the tables to today's revision, in the transaction of the connection; the revision they had.

    StoreError where they were written by a newer Ratchet. Nothing is changed then.
    """
    found = revision(connection)
    if found not in (None, *KNOWN):
        require(connection, url)
    if found == HEAD:
        return found
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "ratchet:migrations")
    config.attributes["connection"] = connection
    if found is not None and not sa.inspect(connection).has_table("alembic_version"):
        command.stamp(config, found)
    command.upgrade(config, HEAD)
    return found
