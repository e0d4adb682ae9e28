"""`python -m api.control.health`: exit 0 while some control process leads, 1 when nobody does."""

from __future__ import annotations

import sys

from sqlalchemy import text

from api.book.database import make_engine
from api.control.leader import LEADER_LOCK
from api.settings import Settings
from training_core.contract.settings import load


def main() -> None:
    engine = make_engine(load(Settings), "health")
    with engine.connect() as connection:
        held = connection.execute(
            text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = :key AND granted"),
            {"key": LEADER_LOCK},
        ).scalar_one()
    engine.dispose()
    sys.exit(0 if held else 1)


if __name__ == "__main__":
    main()
