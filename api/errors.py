"""Errors as `application/problem+json` (RFC 9457). A rejected value is never echoed: it may hold a credential."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

import psycopg
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.routing import iter_route_contexts
from sqlalchemy.exc import DataError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException

from api.book.lifecycle import InvalidTransition
from api.fault_entries import entries_of
from training_core.contract.errors import Failed

log = logging.getLogger("trainyard.api")


class Code(StrEnum):
    """Every code a client may meet; `docs/errors.md` has the same table."""

    MALFORMED_JSON = "malformed_json"
    MALFORMED_MULTIPART = "malformed_multipart"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN_SCOPE = "forbidden_scope"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    BODY_TIMEOUT = "body_timeout"
    INVALID_TRANSITION = "invalid_transition"
    NOT_A_SEARCH = "not_a_search"
    CHECKPOINT_DELETED = "checkpoint_deleted"
    FILE_CHANGED = "file_changed"
    DATASET_IN_USE = "dataset_in_use"
    DIGEST_MISMATCH = "digest_mismatch"
    UPLOAD_ENDED = "upload_ended"
    UPLOAD_INCOMPLETE = "upload_incomplete"
    UPLOAD_IN_PROGRESS = "upload_in_progress"
    EXTERNAL_ID_TAKEN = "external_id_taken"
    NAME_TAKEN = "name_taken"
    KEY_ENDED = "key_ended"
    TOO_MANY_SECRETS = "too_many_secrets"
    BODY_TOO_LARGE = "body_too_large"
    QUOTA_EXCEEDED = "quota_exceeded"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    INVALID_REQUEST = "invalid_request"
    IDEMPOTENCY_KEY_REUSED = "idempotency_key_reused"
    UNSUPPORTED = "unsupported"
    RANGE_NOT_SATISFIABLE = "range_not_satisfiable"
    OVERLOADED = "overloaded"
    RATE_LIMITED = "rate_limited"
    TOO_MANY_OPEN = "too_many_open"
    TOO_MANY_ATTEMPTS = "too_many_attempts"
    INTERNAL_ERROR = "internal_error"
    SECRETS_NOT_SET_UP = "secrets_not_set_up"
    STORE_UNREACHABLE = "store_unreachable"
    DATABASE_UNREACHABLE = "database_unreachable"
    STORE_FULL = "store_full"


class Problem(Exception):
    """An answer that is an error; raised where the cause is known, rendered in one place."""

    def __init__(
        self, status: int, code: Code, detail: str, *, hint: str | None = None, retryable: bool = False,
        errors: Sequence[Mapping[str, Any]] = (), headers: Mapping[str, str] | None = None, **more: Any,
    ) -> None:  # fmt: skip
        super().__init__(detail)
        self.status, self.code, self.detail, self.hint = status, code, detail, hint
        self.retryable, self.errors, self.headers, self.more = retryable, errors, headers, more

    def response(self, request: Request) -> JSONResponse:
        body = {
            "type": f"urn:trainyard:problem:{self.code}",
            "title": self.code.replace("_", " ").capitalize(),
            "status": self.status,
            "detail": self.detail,
            "instance": request.url.path,
            "code": self.code,
            "request_id": getattr(request.state, "request_id", None),
            "retryable": self.retryable,
            **({"hint": self.hint} if self.hint else {}),
            **({"errors": list(self.errors)} if self.errors else {}),
            **self.more,
        }
        return JSONResponse(body, self.status, headers=self.headers, media_type="application/problem+json")


def unsupported(problem: Failed) -> Problem:
    """What a training would refuse, told before there is one; it points at the value to change where that is known."""
    errors = []
    if problem.field is not None:
        pointer = "/" + problem.field.replace(".", "/")
        errors = [{"pointer": pointer, "code": Code.UNSUPPORTED, "message": problem.message}]
    return Problem(422, Code.UNSUPPORTED, problem.message, hint=problem.hint, errors=errors)


def not_found(what: str) -> Problem:
    """Also for what belongs to another project: its existence is nobody else's business."""
    return Problem(404, Code.NOT_FOUND, f"There is no such {what} in this project")


def no_account_yet(*, over: bool) -> Problem:
    if over:
        hint = "It ended before its training had reported one; `reason` and `error` say why"
    else:
        hint = "The training reports it seconds after its first steps, and renews it until its end"
    return Problem(404, Code.NOT_FOUND, "There is no efficiency account yet", hint=hint, retryable=not over)


def invalid_transition(error: InvalidTransition, hint: str | None = None) -> Problem:
    """What the status of a job or dataset check does not allow, and what it does."""
    detail = str(error).capitalize()
    return Problem(409, Code.INVALID_TRANSITION, detail, hint=hint, allowed_actions=error.allowed)


def install(app: FastAPI) -> None:
    """Answer every error of this application as a problem."""

    def problem(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, Problem)  # noqa: S101  registered for this class
        return error.response(request)

    def invalid(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)  # noqa: S101
        return _invalid(error).response(request)

    def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101
        return no_such_method(request) if error.status_code == 405 else _http(error).response(request)

    def unreachable(request: Request, error: Exception) -> JSONResponse:
        log.warning("database: %s", type(error).__name__)
        detail = "The database did not answer in time; nothing was changed unless a retry with the same key says so"
        return Problem(503, Code.DATABASE_UNREACHABLE, detail, retryable=True, headers={"Retry-After": "2"}).response(
            request
        )

    def unstorable(request: Request, _: Exception) -> JSONResponse:
        detail = "A value holds a character that cannot be stored, such as NUL"
        return Problem(422, Code.INVALID_REQUEST, detail).response(request)

    app.add_exception_handler(Problem, problem)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)
    for kind in (OperationalError, InterfaceError, PoolTimeout, psycopg.OperationalError):
        app.add_exception_handler(kind, unreachable)
    app.add_exception_handler(DataError, unstorable)


def no_such_method(request: Request) -> Response:
    """A 405 that names all that there are; to `OPTIONS` that is the answer itself."""
    allowed = ", ".join(sorted({"OPTIONS", *methods_at(request.app, request.url.path)}))
    if request.method == "OPTIONS":
        return Response(status_code=204, headers={"Allow": allowed})
    detail, hint = "This address does not take this method", f"It takes {allowed}"
    return Problem(405, Code.METHOD_NOT_ALLOWED, detail, hint=hint, headers={"Allow": allowed}).response(request)


def methods_at(app: FastAPI, path: str) -> set[str]:
    """Of all routes at an address; the first one that fits knows of its own alone."""
    found: set[str] = set()
    for route in iter_route_contexts(app.routes):
        if route.methods and route.path_regex.match(path):
            found |= route.methods
    return found


def _http(error: HTTPException) -> Problem:
    if error.status_code == 404:
        hint = "Addresses have no slash at their end; /openapi.json lists them all"
        return Problem(404, Code.NOT_FOUND, "There is nothing at this address", hint=hint)
    return Problem(error.status_code, Code.INVALID_REQUEST, "The request could not be answered", headers=error.headers)


def _invalid(error: RequestValidationError) -> Problem:
    faults = error.errors()
    if any(fault["type"] == "json_invalid" for fault in faults):
        return Problem(400, Code.MALFORMED_JSON, "The body is not valid JSON", hint="Send one JSON object as UTF-8")
    return invalid_request(faults)


def invalid_request(faults: Sequence[Any], names: Mapping[str, Sequence[str]] | None = None) -> Problem:
    """A 422 with one entry for each wrong place; `names` gives the known fields at a pointer, for the nearest one."""
    entries = entries_of(faults, names)
    first = entries[0]
    where = first.get("pointer") or first.get("parameter") or "the body"
    count = f" (and {len(entries) - 1} more)" if len(entries) > 1 else ""
    return Problem(422, Code.INVALID_REQUEST, f"{where}: {first['message']}{count}", errors=entries)
