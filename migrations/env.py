"""Runs migrations against `TRAINYARD_DATABASE_URL`, one transaction each, under a lock so that replicas may race.

The version table has a name of its own: other tools that keep tables in this database also use `alembic_version`.
"""

from __future__ import annotations

import os
from logging.config import fileConfig

from alembic import context
from alembic.util import CommandError
from sqlalchemy import create_engine, pool, text

from api.book.models import Base

VERSION_TABLE = "trainyard_version"
MIGRATION_LOCK = 7_271_001

WORDED_ANEW = {
    "ix_jobs_lanes"
}  # PostgreSQL tells its expression in other words; the tests compare what it makes of both


def _compared(_: object, name: str | None, kind: str, *__: object) -> bool:
    return not (kind == "index" and name in WORDED_ANEW)


def run() -> None:
    if context.config.config_file_name:
        fileConfig(context.config.config_file_name, disable_existing_loggers=False)
    url = os.environ.get("TRAINYARD_DATABASE_URL")
    if not url:
        raise CommandError("TRAINYARD_DATABASE_URL is not set; it names the database to migrate")
    engine = create_engine(url, poolclass=pool.NullPool)
    with engine.connect() as connection:
        connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": MIGRATION_LOCK})
        connection.execute(text("SET lock_timeout = '5s'"))
        connection.commit()
        context.configure(
            connection=connection,
            target_metadata=Base.metadata,
            version_table=VERSION_TABLE,
            transaction_per_migration=True,
            include_object=_compared,
        )
        with context.begin_transaction():
            context.run_migrations()
        connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": MIGRATION_LOCK})
        connection.commit()
    engine.dispose()


run()
