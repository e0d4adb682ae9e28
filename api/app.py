"""The HTTP application: `uvicorn --factory api.app:create_app`. It talks to PostgreSQL and the store alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from fastapi import Depends, FastAPI
from fastapi.staticfiles import StaticFiles

from api import errors, openapi, production
from api.addresses import AddressCheck
from api.bells import Bells
from api.bodies.reader import BodyReader
from api.book.database import make_engine, make_sessions
from api.headers import SecurityHeaders
from api.keyring import Keyring
from api.limits import BodyLimit
from api.links import PublicUrl
from api.profiles import Profiles
from api.request_ids import Faults, RequestIds
from api.routes import (
    api_keys,
    artifacts,
    audit_log,
    checkpoints,
    data_reports,
    dataset_checks,
    events,
    fleet,
    health,
    jobs,
    metrics,
    plans,
    projects,
    trials,
)
from api.settings import Settings
from api.store import Store
from training_core.settings import load

VERSION = "0.1.0"
PAGES = Path(__file__).with_name("static")


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
        await app.state.bodies.close()
        engine.dispose()

    app = FastAPI(
        title="Trainyard", version=VERSION, lifespan=lifespan, summary="POST a training job, watch it train.",
        docs_url=None, redoc_url=None, redirect_slashes=False, dependencies=[Depends(AddressCheck())],
        generate_unique_id_function=openapi.operation_id,
    )  # fmt: skip
    app.state.settings, app.state.bells = settings, bells
    app.state.sessions = make_sessions(engine)
    app.state.keyring = Keyring(app.state.sessions, bells, settings.key_cache_seconds)
    app.state.profiles = Profiles.load(settings.profiles_file)
    app.state.store = Store(settings)
    app.state.bodies = BodyReader()
    errors.install(app)
    for part in (
        jobs, trials, plans, events, metrics, checkpoints, artifacts, data_reports, dataset_checks, fleet, health,
        api_keys, projects, audit_log,
    ):  # fmt: skip
        app.include_router(part.router)
    app.mount("/docs", StaticFiles(directory=PAGES / "docs", html=True), name="docs")
    app.add_middleware(BodyLimit, limit_bytes=settings.body_limit_bytes, receive_seconds=settings.receive_seconds)
    app.add_middleware(Faults)
    app.add_middleware(PublicUrl, public_url=settings.public_url)
    app.add_middleware(SecurityHeaders, public_url=settings.public_url)
    app.add_middleware(RequestIds)
    app.openapi = lambda: openapi.document(app)  # type: ignore[method-assign]
    return app
