"""What kinds of bodies an upload may have, and what the file of a raw one is called."""

from __future__ import annotations

from typing import Any

from api.errors import Code, Problem
from api.uploads.names import BadName, checked
from training_core.contract.uploads import ARCHIVES, TABLES, stands_alone

SUFFIXES = {
    "application/zip": ".zip",
    "application/x-zip-compressed": ".zip",
    "application/x-tar": ".tar",
    "application/gzip": ".tar.gz",
    "application/x-gzip": ".tar.gz",
    "text/csv": ".csv",
    "application/x-ndjson": ".jsonl",
    "application/jsonl": ".jsonl",
    "application/vnd.apache.parquet": ".parquet",
    "application/octet-stream": "",
}
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_FORM = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 200},
        "files": {"type": "array", "items": {"type": "string", "format": "binary"}},
    },
}
PART: dict[str, Any] = {"requestBody": {"required": True, "content": {"application/octet-stream": _BINARY}}}


def bodies(spec: dict[str, Any]) -> dict[str, Any]:
    """What OpenAPI shows; `spec` is the schema of the JSON that begins an upload in parts."""
    binary = dict.fromkeys(SUFFIXES, _BINARY)
    content = {"multipart/form-data": {"schema": _FORM}, **binary, "application/json": {"schema": spec}}
    return {"requestBody": {"required": True, "content": content}}


def kind_of(content_type: str) -> str:
    """`form`, `json`, or a media type of `SUFFIXES`; raises a 415 problem."""
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type == "multipart/form-data":
        return "form"
    if media_type == "application/json":
        return "json"
    if media_type in SUFFIXES:
        return media_type
    hint = f"Send multipart/form-data, application/json for an upload in parts, or one of {', '.join(SUFFIXES)}"
    raise Problem(415, Code.UNSUPPORTED_MEDIA_TYPE, "An upload of this Content-Type is not taken", hint=hint)


def checked_name(name: str) -> str:
    """Raises a 422 problem for a name that no file could have."""
    try:
        checked(name)
    except BadName as problem:
        raise _invalid(f"the name {problem}") from None
    if "/" in name:
        raise _invalid("the name has no folders")
    return name


def file_name(name: str | None, media_type: str) -> str:
    """Of a raw body, from `?name=` and its media type; raises a 422 problem where they do not tell what it is."""
    suffix = SUFFIXES[media_type]
    if name is not None and stands_alone(name):
        return checked_name(name)
    if not suffix:
        raise _invalid(f"name the file in ?name=, with one of the endings {', '.join(ARCHIVES + TABLES)}")
    return checked_name(f"{name or 'data'}{suffix}")


def _invalid(message: str) -> Problem:
    fault = {"parameter": "name", "code": "value_error", "message": message}
    return Problem(422, Code.INVALID_REQUEST, f"name: {message}", errors=[fault])
