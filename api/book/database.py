"""Engine and sessions. Bounded waits everywhere: a sick database becomes a clear 503, never a hanging request."""

from __future__ import annotations

from sqlalchemy import Engine, create_engine
from sqlalchemy.orm import Session, sessionmaker

from api.settings import Settings

Sessions = sessionmaker[Session]

_TIMEOUTS = "-c statement_timeout=15000 -c lock_timeout=5000 -c idle_in_transaction_session_timeout=30000"


def make_engine(settings: Settings, application: str) -> Engine:
    """An engine on PostgreSQL through psycopg; waits at most 2 s for a pooled connection and 5 s to connect."""
    return create_engine(
        settings.database_url.get_secret_value(),
        pool_size=settings.pool_size,
        max_overflow=0,
        pool_timeout=2,
        pool_pre_ping=True,
        connect_args={"connect_timeout": 5, "options": _TIMEOUTS, "application_name": f"trainyard-{application}"},
    )


def make_sessions(engine: Engine) -> Sessions:
    """`with sessions.begin() as session:` is the one way to write."""
    return sessionmaker(engine, expire_on_commit=False)
