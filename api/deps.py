"""What routes ask for. Nothing here commits, and no session outlives the function that opened it."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import HTTPBearer, SecurityScopes

from api.auth import Principal
from api.bells import Bells
from api.book.database import Sessions
from api.book.scopes import Scope
from api.keyring import Keyring
from api.profiles import Profiles
from api.settings import Settings
from api.store import Store

# Only documents the scheme in OpenAPI; `Keyring.admit` reads the header itself and answers with a problem.
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


def _keyring(request: Request) -> Keyring:
    keyring: Keyring = request.app.state.keyring
    return keyring


async def _principal(needed: SecurityScopes, request: Request, _: Annotated[object, Depends(_scheme)]) -> Principal:
    keyring: Keyring = request.app.state.keyring
    key = await keyring.admit(request.headers.get("authorization"))
    address = request.client.host if request.client is not None else None
    caller = Principal(key.project_id, key.key_id, key.scopes, address, getattr(request.state, "request_id", None))
    for scope in needed.scopes:
        caller.require(Scope(scope))
    return caller


SettingsOf = Annotated[Settings, Depends(_settings)]
SessionsOf = Annotated[Sessions, Depends(_sessions)]
BellsOf = Annotated[Bells, Depends(_bells)]
ProfilesOf = Annotated[Profiles, Depends(_profiles)]
StoreOf = Annotated[Store, Depends(_store)]
KeyringOf = Annotated[Keyring, Depends(_keyring)]

# What a route asks of the key that calls it: any valid one, or one with this scope. OpenAPI shows it as the security
# of the route, and tests/integration/test_access_matrix.py has a row for each route.
Caller = Annotated[Principal, Depends(_principal)]
JobsReader = Annotated[Principal, Security(_principal, scopes=[Scope.JOBS_READ])]
JobsWriter = Annotated[Principal, Security(_principal, scopes=[Scope.JOBS_WRITE])]
DataReader = Annotated[Principal, Security(_principal, scopes=[Scope.DATA_READ])]
Administrator = Annotated[Principal, Security(_principal, scopes=[Scope.ADMIN])]
Operator = Annotated[Principal, Security(_principal, scopes=[Scope.OPERATOR])]
