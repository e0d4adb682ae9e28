"""What routes ask for. Nothing here commits, and no session outlives the function that opened it."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import APIKeyQuery, HTTPBearer, SecurityScopes

from api.auth import Principal, unauthenticated
from api.book.database import Sessions
from api.book.scopes import Scope
from api.errors import not_found
from api.keyring import Keyring
from api.known_secrets import KnownSecrets
from api.notifications import Notifications
from api.profiles import Profiles
from api.settings import Settings
from api.store import Store
from api.stream_tokens import PARAMETER, PREFIX, Signer, Unreadable

# Only documents the scheme in OpenAPI; `Keyring.admit` reads the header itself and answers with a problem.
_scheme = HTTPBearer(auto_error=False, description="`Authorization: Bearer ty_…`")

_token = APIKeyQuery(
    name=PARAMETER, scheme_name="StreamToken", auto_error=False, description="of `POST /v1/stream_tokens`; `st_…`"
)


def _settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


def _sessions(request: Request) -> Sessions:
    sessions: Sessions = request.app.state.sessions
    return sessions


def _notifications(request: Request) -> Notifications:
    notifications: Notifications = request.app.state.notifications
    return notifications


def _profiles(request: Request) -> Profiles:
    profiles: Profiles = request.app.state.profiles
    return profiles


def _store(request: Request) -> Store:
    store: Store = request.app.state.store
    return store


def _keyring(request: Request) -> Keyring:
    keyring: Keyring = request.app.state.keyring
    return keyring


def _known_secrets(request: Request) -> KnownSecrets:
    known: KnownSecrets = request.app.state.known_secrets
    return known


async def _principal(needed: SecurityScopes, request: Request, _: Annotated[object, Depends(_scheme)]) -> Principal:
    keyring: Keyring = request.app.state.keyring
    key = await keyring.admit(request.headers.get("authorization"))
    address = request.client.host if request.client is not None else None
    caller = Principal(key.project_id, key.key_id, key.scopes, address, getattr(request.state, "request_id", None))
    for scope in needed.scopes:
        caller.require(Scope(scope))
    return caller


def _signer(request: Request) -> Signer:
    signer: Signer = request.app.state.signer
    return signer


async def _stream_principal(
    needed: SecurityScopes, request: Request, _: Annotated[object, Depends(_token)]
) -> Principal:
    """By a key as everywhere, or by a stream token, which opens what it was made for."""
    text = (request.headers.get("authorization") or "").partition(" ")[2].strip()
    if not text.startswith(PREFIX):
        return await _principal(needed, request, None)
    try:
        token = request.app.state.signer.read(text)
    except Unreadable:
        raise unauthenticated("This stream token is not known, or its time is over; ask for a new one") from None
    if not token.opens(request.path_params.get("job_id", "")):
        raise not_found("job")
    key = await request.app.state.keyring.require(token.key_id)
    caller = Principal(key.project_id, key.key_id, key.scopes & set(needed.scopes))
    for scope in needed.scopes:
        caller.require(Scope(scope))
    return caller


SettingsOf = Annotated[Settings, Depends(_settings)]
SessionsOf = Annotated[Sessions, Depends(_sessions)]
NotificationsOf = Annotated[Notifications, Depends(_notifications)]
ProfilesOf = Annotated[Profiles, Depends(_profiles)]
StoreOf = Annotated[Store, Depends(_store)]
KnownSecretsOf = Annotated[KnownSecrets, Depends(_known_secrets)]
KeyringOf = Annotated[Keyring, Depends(_keyring)]
SignerOf = Annotated[Signer, Depends(_signer)]

# What a route asks of the key that calls it: any valid one, or one with this scope. OpenAPI shows it as the security
# of the route, and tests/integration/test_access_matrix.py has a row for each route.
Caller = Annotated[Principal, Depends(_principal)]
JobsReader = Annotated[Principal, Security(_principal, scopes=[Scope.JOBS_READ])]
StreamReader = Annotated[Principal, Security(_stream_principal, scopes=[Scope.JOBS_READ])]
JobsWriter = Annotated[Principal, Security(_principal, scopes=[Scope.JOBS_WRITE])]
DataReader = Annotated[Principal, Security(_principal, scopes=[Scope.DATA_READ])]
Administrator = Annotated[Principal, Security(_principal, scopes=[Scope.ADMIN])]
Operator = Annotated[Principal, Security(_principal, scopes=[Scope.OPERATOR])]
