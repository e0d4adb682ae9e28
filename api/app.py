"""The HTTP application: `uvicorn --factory api.app:create_app`. It talks to PostgreSQL and the store alone."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi
from fastapi.staticfiles import StaticFiles
from ulid import ULID

from api import errors, production
from api.bells import Bells
from api.book.database import make_engine, make_sessions
from api.dataset_check import CheckSpec
from api.headers import SecurityHeaders
from api.limits import BodyLimit
from api.links import PublicUrl
from api.profiles import Profiles
from api.routes import (
    artifacts,
    checkpoints,
    data_reports,
    dataset_checks,
    events,
    fleet,
    health,
    jobs,
    metrics,
    plans,
    trials,
)
from api.settings import Settings
from api.store import Store
from training_core.settings import load
from training_core.spec import JobSpec

VERSION = "0.1.0"
PAGES = Path(__file__).with_name("static")
_REQUEST_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


def create_app(settings: Settings | None = None) -> FastAPI:
    """An application with its own engine and its own LISTEN connection, made when it starts."""
    settings = settings or load(Settings)
    production.check(settings, with_redis=False)
    engine = make_engine(settings, "api")
    bells = Bells(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        listening = asyncio.create_task(bells.run())
        yield
        listening.cancel()
        with suppress(asyncio.CancelledError):
            await listening
        engine.dispose()

    app = FastAPI(
        title="Trainyard", version=VERSION, lifespan=lifespan, summary="POST a training job, watch it train.",
        docs_url=None, redoc_url=None,
    )  # fmt: skip
    app.state.settings, app.state.bells = settings, bells
    app.state.sessions = make_sessions(engine)
    app.state.profiles = Profiles.load(settings.profiles_file)
    app.state.store = Store(settings)
    errors.install(app)
    for part in (
        jobs, trials, plans, events, metrics, checkpoints, artifacts, data_reports, dataset_checks, fleet, health
    ):  # fmt: skip
        app.include_router(part.router)
    app.mount("/docs", StaticFiles(directory=PAGES / "docs", html=True), name="docs")
    app.add_middleware(BodyLimit, limit_bytes=settings.body_limit_bytes, receive_seconds=settings.receive_seconds)
    app.middleware("http")(_name_request)
    app.add_middleware(PublicUrl, public_url=settings.public_url)
    app.add_middleware(SecurityHeaders, public_url=settings.public_url)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


async def _name_request(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    """Every response carries `Request-Id`: the client's own when it is harmless, else a new one."""
    given = request.headers.get("request-id", "")
    request.state.request_id = given if _REQUEST_ID.fullmatch(given) else f"req_{ULID()}"
    response = await call_next(request)
    response.headers["Request-Id"] = request.state.request_id
    return response


def _openapi(app: FastAPI) -> dict[str, Any]:
    """FastAPI's document, with our problem in place of its own 422 and the specs that the POSTs take."""
    if app.openapi_schema:
        return app.openapi_schema
    document = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes)
    schemas = document["components"]["schemas"]
    for name, model in (("JobSpec", JobSpec), ("DatasetCheckSpec", CheckSpec)):
        spec = model.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(spec.pop("$defs"))
        schemas[name] = spec
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    schemas["Problem"] = _PROBLEM
    problem = {"content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}}
    for path in document["paths"].values():
        for operation in path.values():
            operation["responses"].pop("422", None)
            operation["responses"]["default"] = {"description": "A problem (RFC 9457)", **problem}
    app.openapi_schema = document
    return document


_PROBLEM = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "code", "retryable"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "instance": {"type": "string"},
        "code": {"type": "string", "enum": [str(code) for code in errors.Code]},
        "request_id": {"type": "string"},
        "retryable": {"type": "boolean"},
        "hint": {"type": "string"},
        "errors": {"type": "array", "items": {"type": "object"}},
    },
}
