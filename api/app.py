"""The HTTP application; `python -m api` serves it. It talks to PostgreSQL and the store alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from fastapi import Depends, FastAPI
from fastapi.staticfiles import StaticFiles
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import RedirectResponse

from api import errors, openapi, production
from api.addresses import AddressCheck
from api.admission.overload import Overload
from api.admission.rates import RateLimits
from api.bodies.reader import BodyReader
from api.book.database import make_engine, make_sessions
from api.compression import Gzip
from api.headers import SecurityHeaders
from api.keyring import Keyring
from api.known_secrets import KnownSecrets
from api.limits import BodyLimit
from api.links import PublicUrl
from api.notifications import Notifications
from api.profiles import Profiles
from api.request_ids import Faults, RequestIds
from api.routes import (
    api_keys,
    artifacts,
    audit_log,
    checkpoints,
    data_reports,
    dataset_checks,
    datasets,
    events,
    fleet,
    health,
    jobs,
    metrics,
    plans,
    projects,
    secrets,
    stream_tokens,
    trials,
)
from api.settings import Settings
from api.store import Store
from api.stream_tokens import Signer, TokenOutOfQuery
from training_core.contract.redaction import redact_logs
from training_core.contract.sealing import sealer_of
from training_core.contract.settings import load
from training_core.processes.handover import no_core_files

VERSION = "0.1.0"
CROSS_ORIGIN: dict[str, Any] = {
    "allow_methods": ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"],
    "allow_headers": [
        "Authorization", "Content-Type", "Idempotency-Key", "If-Match", "If-None-Match", "If-Range", "Last-Event-ID",
        "Range", "Request-Id",
    ],
    "expose_headers": [
        "Content-Range", "ETag", "Idempotency-Replayed", "Location", "RateLimit", "RateLimit-Policy", "Repr-Digest",
        "Request-Id", "Retry-After",
    ],
    "max_age": 600,
}  # fmt: skip
PAGES = Path(__file__).with_name("static")


def _to_the_page(_: Request) -> RedirectResponse:
    """Relative, so that it holds behind a proxy's prefix too."""
    return RedirectResponse("docs/")


def create_app(settings: Settings | None = None) -> FastAPI:
    """An application with its own engine and its own LISTEN connection, made when it starts."""
    settings = settings or load(Settings)
    production.check(settings, with_redis=False)
    engine = make_engine(settings, "api")
    notifications = Notifications(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        redact_logs()  # uvicorn has made its handlers by now
        no_core_files()
        listening = asyncio.create_task(notifications.run())
        yield
        listening.cancel()
        with suppress(asyncio.CancelledError):
            await listening
        await app.state.bodies.close()
        engine.dispose()

    app = FastAPI(
        title="Trainyard", version=VERSION, lifespan=lifespan, summary="POST a training job, watch it train.",
        docs_url=None, redoc_url=None, redirect_slashes=False, dependencies=[Depends(AddressCheck())],
        generate_unique_id_function=openapi.operation_id,
    )  # fmt: skip
    app.state.settings, app.state.notifications = settings, notifications
    app.state.sessions = make_sessions(engine)
    app.state.keyring = Keyring(app.state.sessions, notifications, settings.key_cache_seconds)
    app.state.profiles = Profiles.load(settings.profiles_file)
    app.state.store = Store(settings)
    app.state.sealer = sealer_of(settings.secrets_key.get_secret_value())
    app.state.known_secrets = KnownSecrets.load(settings.credentials_file)
    app.state.bodies = BodyReader()
    app.state.working = set[asyncio.Task[bool]]()
    app.state.signer = Signer(settings.signing_key.get_secret_value())
    errors.install(app)
    for part in (
        jobs, trials, plans, events, stream_tokens, metrics, checkpoints, artifacts, datasets, data_reports,
        dataset_checks, fleet, health, secrets, api_keys, projects, audit_log,
    ):  # fmt: skip
        app.include_router(part.router)
    app.add_route("/docs", _to_the_page, include_in_schema=False)
    app.mount("/docs", StaticFiles(directory=PAGES / "docs", html=True), name="docs")
    app.add_middleware(Overload, places=settings.places, patience_seconds=settings.patience_seconds)
    app.add_middleware(BodyLimit, limit_bytes=settings.body_limit_bytes, receive_seconds=settings.receive_seconds)
    app.add_middleware(RateLimits, settings=settings)
    app.add_middleware(Faults)
    app.add_middleware(Gzip)
    app.add_middleware(PublicUrl, public_url=settings.public_url)
    app.add_middleware(SecurityHeaders, public_url=settings.public_url)
    if settings.origins:
        app.add_middleware(CORSMiddleware, allow_origins=settings.origins, **CROSS_ORIGIN)
    app.add_middleware(RequestIds)
    app.add_middleware(TokenOutOfQuery)
    app.openapi = lambda: openapi.document(app)  # type: ignore[method-assign]
    return app
