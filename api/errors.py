"""Errors as `application/problem+json` (RFC 9457). A rejected value is never echoed: it may hold a credential."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from enum import StrEnum
from typing import Any

import psycopg
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import DataError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException

from api.book.lifecycle import InvalidTransition

log = logging.getLogger("trainyard.api")


class Code(StrEnum):
    """Every code a client may meet; `docs/errors.md` has the same table."""

    MALFORMED_JSON = "malformed_json"
    UNAUTHENTICATED = "unauthenticated"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    BODY_TIMEOUT = "body_timeout"
    INVALID_TRANSITION = "invalid_transition"
    NOT_A_SEARCH = "not_a_search"
    CHECKPOINT_DELETED = "checkpoint_deleted"
    FILE_CHANGED = "file_changed"
    EXTERNAL_ID_TAKEN = "external_id_taken"
    BODY_TOO_LARGE = "body_too_large"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    INVALID_REQUEST = "invalid_request"
    IDEMPOTENCY_KEY_REUSED = "idempotency_key_reused"
    UNSUPPORTED = "unsupported"
    RANGE_NOT_SATISFIABLE = "range_not_satisfiable"
    INTERNAL_ERROR = "internal_error"
    STORE_UNREACHABLE = "store_unreachable"
    DATABASE_UNREACHABLE = "database_unreachable"


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

    def http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)  # noqa: S101
        return _http(error).response(request)

    def unreachable(request: Request, error: Exception) -> JSONResponse:
        log.warning("database: %s", type(error).__name__)
        detail = "The database did not answer in time; nothing was changed unless a retry with the same key says so"
        return Problem(503, Code.DATABASE_UNREACHABLE, detail, retryable=True, headers={"Retry-After": "2"}).response(
            request
        )

    def unstorable(request: Request, _: Exception) -> JSONResponse:
        detail = "A value holds a character that cannot be stored, such as NUL"
        return Problem(422, Code.INVALID_REQUEST, detail).response(request)

    def broken(request: Request, error: Exception) -> JSONResponse:
        log.error("unexpected error", exc_info=error)
        detail = "An unexpected error; the request id finds it in the server's log"
        return Problem(500, Code.INTERNAL_ERROR, detail).response(request)

    app.add_exception_handler(Problem, problem)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)
    for kind in (OperationalError, InterfaceError, PoolTimeout, psycopg.OperationalError):
        app.add_exception_handler(kind, unreachable)
    app.add_exception_handler(DataError, unstorable)
    app.add_exception_handler(Exception, broken)


def _http(error: HTTPException) -> Problem:
    code = {404: Code.NOT_FOUND, 405: Code.METHOD_NOT_ALLOWED}.get(error.status_code, Code.INVALID_REQUEST)
    detail = {404: "There is nothing at this address", 405: "This address does not take this method"}
    text = detail.get(error.status_code, "The request could not be answered")
    return Problem(error.status_code, code, text, headers=error.headers)


def _invalid(error: RequestValidationError) -> Problem:
    faults = error.errors()
    if any(fault["type"] == "json_invalid" for fault in faults):
        return Problem(400, Code.MALFORMED_JSON, "The body is not valid JSON", hint="Send one JSON object as UTF-8")
    return invalid_request(faults)


def invalid_request(faults: Sequence[Any], names: Mapping[str, Sequence[str]] | None = None) -> Problem:
    """A 422 with one entry for each wrong place; `names` gives the known fields at a pointer, for the nearest one."""
    entries: dict[str, dict[str, Any]] = {}
    for fault in faults:
        entry = _entry(fault, names or {})
        known = entries.setdefault(f"{entry.get('parameter')}{entry.get('pointer')}", entry)
        if known is not entry and "allowed" in entry:
            _add_alternative(known, entry, fault)
    first = next(iter(entries.values()))
    where = first.get("pointer") or first.get("parameter") or "the body"
    count = f" (and {len(entries) - 1} more)" if len(entries) > 1 else ""
    detail = f"{where}: {first['message']}{count}"
    return Problem(422, Code.INVALID_REQUEST, detail, errors=list(entries.values()), hint=first.get("hint"))


def _entry(fault: Any, names: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    source, *rest = fault["loc"]
    place: dict[str, Any] = (
        {"pointer": "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in rest)}
        if source == "body"
        else {"parameter": str(rest[0]) if rest else str(source)}
    )
    entry = {**place, "code": fault["type"], "message": _message(fault)}
    if fault["type"] == "extra_forbidden":
        parent = "/".join(str(part) for part in rest[:-1])
        known = list(names.get(parent, ()))
        if nearest := get_close_matches(str(rest[-1]), known, n=1, cutoff=0.6):
            entry["did_you_mean"] = nearest[0]
        entry["allowed"] = known
    if fault["type"] in ("literal_error", "enum"):
        allowed = re.findall(r"'([^']*)'", str(fault.get("ctx", {}).get("expected", "")))
        entry["allowed"] = allowed
        if nearest := get_close_matches(str(fault.get("input")), allowed, n=1, cutoff=0.6):
            entry["did_you_mean"] = nearest[0]
    return entry


def _add_alternative(entry: dict[str, Any], other: Mapping[str, Any], fault: Any) -> None:
    """A field that takes one thing or another, such as a number or `auto`, has a fault for each of them."""
    entry["message"] += ", or " + " or ".join(f"'{name}'" for name in other["allowed"])
    if "allowed" in entry:
        entry["allowed"] = [*entry["allowed"], *other["allowed"]]
    words = entry.get("allowed", other["allowed"])
    if nearest := get_close_matches(str(fault.get("input")), words, n=1, cutoff=0.6):
        entry["did_you_mean"] = nearest[0]


def _message(fault: Any) -> str:
    """pydantic's own words, without the parts that repeat the input."""
    match fault["type"]:
        case "extra_forbidden":
            return "There is no such field"
        case "value_error":
            return str(fault.get("ctx", {}).get("error", "The value is not accepted"))
        case "model_type" | "model_attributes_type":
            return "Input should be an object"
        case "json_invalid":
            return "The body is not valid JSON"
        case _:
            return str(fault["msg"])
