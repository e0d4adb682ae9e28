"""What routes ask for. Nothing here commits, and no session outlives the function that opened it."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPBearer

from api.auth import Principal, authenticate
from api.bells import Bells
from api.book.database import Sessions
from api.profiles import Profiles
from api.settings import Settings
from api.store import Store

# Only documents the scheme in OpenAPI; `authenticate` reads the header itself and answers with a problem.
_scheme = HTTPBearer(auto_error=False, description="`Authorization: Bearer ty_…`")


def _settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


def _sessions(request: Request) -> Sessions:
    sessions: Sessions = request.app.state.sessions
    return sessions


def _bells(request: Request) -> Bells:
    bells: Bells = request.app.state.bells
    return bells


def _profiles(request: Request) -> Profiles:
    profiles: Profiles = request.app.state.profiles
    return profiles


def _store(request: Request) -> Store:
    store: Store = request.app.state.store
    return store


def _principal(request: Request, _: Annotated[object, Depends(_scheme)]) -> Principal:
    with request.app.state.sessions() as session:
        return authenticate(session, request.headers.get("authorization"))


SettingsOf = Annotated[Settings, Depends(_settings)]
SessionsOf = Annotated[Sessions, Depends(_sessions)]
BellsOf = Annotated[Bells, Depends(_bells)]
ProfilesOf = Annotated[Profiles, Depends(_profiles)]
StoreOf = Annotated[Store, Depends(_store)]
Caller = Annotated[Principal, Depends(_principal)]

# What a route asks of the key that calls it, by scope.
JobsReader = Caller
JobsWriter = Caller
DataReader = Caller
Administrator = Caller
Operator = Caller
