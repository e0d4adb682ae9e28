"""`/healthz`: the process answers. `/readyz`: it can do its work, and if not, what is missing and the way out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alembic.config import Config
from alembic.script import ScriptDirectory
from fastapi import APIRouter
from fastapi.responses import JSONResponse
from sqlalchemy import func, select, text
from sqlalchemy.exc import DBAPIError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from api.book.database import Sessions
from api.book.models import Worker
from api.deps import SessionsOf

router = APIRouter(tags=["health"])

MIGRATIONS = Path(__file__).parents[2] / "migrations"


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """200 while the event loop turns; asks nothing of the database."""
    return {"status": "ok"}


@router.get("/readyz")
def readyz(sessions: SessionsOf) -> JSONResponse:
    """200 when jobs are accepted; 503 names what is missing. Without a worker jobs are accepted, and wait."""
    checks = {"database": _database(sessions)}
    if checks["database"]["ok"]:
        checks["migrations"] = _migrations(sessions)
    ready = all(check["ok"] for check in checks.values())
    if ready:
        checks["workers"] = _workers(sessions)
    return JSONResponse({"status": "ready" if ready else "not ready", "checks": checks}, 200 if ready else 503)


def _database(sessions: Sessions) -> dict[str, Any]:
    try:
        with sessions() as session:
            session.execute(text("SELECT 1"))
    except (DBAPIError, PoolTimeout) as error:
        return {"ok": False, "detail": type(error).__name__, "fix": "see that TRAINYARD_DATABASE_URL can be reached"}
    return {"ok": True}


def _migrations(sessions: Sessions) -> dict[str, Any]:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    head = ScriptDirectory.from_config(config).get_current_head()
    try:
        with sessions() as session:
            current = session.execute(text("SELECT version_num FROM trainyard_version")).scalar_one_or_none()
    except ProgrammingError:
        current = None
    if current != head:
        return {"ok": False, "current": current, "head": head, "fix": "run `python -m alembic upgrade head`"}
    return {"ok": True, "head": head}


def _workers(sessions: Sessions) -> dict[str, Any]:
    with sessions() as session:
        online = session.execute(select(func.count()).select_from(Worker).where(Worker.status == "online")).scalar_one()
    return {"ok": online > 0, "online": online}
