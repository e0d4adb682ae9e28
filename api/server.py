"""The web server around the application: uvicorn, with deadlines and bounds for connections."""

from __future__ import annotations

import resource
from typing import Any

import uvicorn
from fastapi import FastAPI

from api.admission.connections import bounded
from api.settings import Settings

SPARE_FILES = 200  # for the database, the store, and what else is open


def make_server(app: FastAPI, settings: Settings, **options: Any) -> uvicorn.Server:
    """As `python -m api` runs it; `options` are of `uvicorn.Config`.

    uvicorn's own variable `FORWARDED_ALLOW_IPS` says which proxies may tell the client's address.
    """
    ours: dict[str, Any] = {
        "host": settings.host,
        "port": settings.port,
        "http": bounded(settings.header_seconds, settings.connections),
        "ws": "none",
        "timeout_keep_alive": settings.keep_alive_seconds,
        "timeout_graceful_shutdown": settings.drain_seconds,
    }
    return uvicorn.Server(uvicorn.Config(app, **(ours | options)))


def allow_open_files(connections: int) -> None:
    """Raise the soft limit of this process, as far as the hard one allows, so that every connection has its file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + SPARE_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, allowed), hard))
