"""The OpenAPI document: what FastAPI finds out, and what it does not. Every operation has an id as `jobs.create`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.openapi.utils import get_openapi
from fastapi.routing import iter_route_contexts
from pydantic import BaseModel
from sse_starlette import EventSourceResponse

from api import errors
from api.bodies.door import Json
from api.openapi_streams import stream_responses, stream_schemas

Document = dict[str, Any]
VERBS = {"submit": "create", "read": "get"}
REFERENCE = "#/components/schemas/{model}"


def operation_id(route: Any) -> str:
    """From the route's first tag and its function: `list_jobs` of `jobs` is `jobs.list`, `read` is `jobs.get`."""
    tag = str(route.tags[0]) if route.tags else "service"
    verb, *words = route.name.split("_")
    own = {*tag.split("_"), *(word.removesuffix("s") for word in tag.split("_"))}
    while words and words[-1] in {*own, *(f"{word}s" for word in own)}:
        words.pop()
    return f"{tag}.{'_'.join([VERBS.get(verb, verb), *words])}"


def document(app: FastAPI) -> Document:
    """Made once for each application."""
    if app.openapi_schema:
        return app.openapi_schema
    made = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes)
    schemas = made["components"]["schemas"]
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    schemas["Problem"] = PROBLEM
    schemas |= stream_schemas()
    schemas["EventAnswer"]["properties"]["type"] = {"$ref": REFERENCE.format(model="EventType")}
    for route in iter_route_contexts(app.routes):
        for method in sorted(route.methods or ()):
            operation = made["paths"].get(route.path_format, {}).get(method.lower())
            if operation is not None:
                _complete(operation, method, route, schemas)
    app.openapi_schema = made
    return made


def _complete(operation: Document, method: str, route: Any, schemas: Document) -> None:
    if method == "HEAD" and len(route.methods) > 1:
        operation["operationId"] += "_head"
    bodies = list(_bodies(route.dependant))
    for content in operation.get("requestBody", {}).get("content", {}).values():
        content.update(_examples(content.get("schema", {})))
    for model in bodies:
        operation["requestBody"] = _request_body(model, schemas)
    if route.response_class is EventSourceResponse:
        operation["responses"] |= stream_responses()
        operation["security"] = [{"HTTPBearer": scopes} for one in operation["security"] for scopes in one.values()]
        operation["security"] += [{"StreamToken": []}]
    headers = {one["name"].lower() for one in operation.get("parameters", ()) if one["in"] == "header"}
    if "if-none-match" in headers:
        operation["responses"]["304"] = {"description": "The client has it already"}
    if "range" in headers:
        operation["responses"]["206"] = {"description": "The one range that was asked for"}
        operation["responses"]["416"] = _problem("`range_not_satisfiable`")
    operation["responses"].pop("422", None)
    for status, codes in sorted(_refusals(operation, takes_json=bool(bodies)).items()):
        operation["responses"].setdefault(str(status), _problem(", ".join(f"`{code}`" for code in codes)))
    operation["responses"]["default"] = _problem("Any other problem; `code` says which")


def _bodies(dependant: Dependant) -> Iterator[type[BaseModel]]:
    for one in dependant.dependencies:
        if isinstance(one.call, Json):
            yield one.call.model
        yield from _bodies(one)


def _request_body(model: type[BaseModel], schemas: Document) -> Document:
    schema = model.model_json_schema(ref_template=REFERENCE)
    schemas.update(schema.pop("$defs", {}))
    name = schema.get("title", model.__name__)
    schemas[name] = schema
    content = {"schema": {"$ref": REFERENCE.format(model=name)}, **_examples(schema)}
    return {"required": True, "content": {"application/json": content}}


def _examples(schema: Document) -> Document:
    """Of a body, beside its schema, where tools look for them."""
    found = {f"example_{number}": {"value": one} for number, one in enumerate(schema.get("examples", ()), 1)}
    return {"examples": found} if found else {}


def _refusals(operation: Document, *, takes_json: bool) -> dict[int, list[errors.Code]]:
    """What any route of this kind may answer; what one of them alone does is told by itself, or by `default`."""
    code = errors.Code
    found: dict[int, list[errors.Code]] = {422: [code.INVALID_REQUEST]}
    if operation.get("security"):
        found |= {
            401: [code.UNAUTHENTICATED],
            403: [code.FORBIDDEN_SCOPE],
            503: [code.DATABASE_UNREACHABLE, code.OVERLOADED],
        }
    if any(one["in"] == "path" for one in operation.get("parameters", ())):
        found[404] = [code.NOT_FOUND]
    if any(one["name"] == "Idempotency-Key" for one in operation.get("parameters", ())):
        found[422] += [code.UNSUPPORTED, code.IDEMPOTENCY_KEY_REUSED]
        found[409] = [code.EXTERNAL_ID_TAKEN]
    if takes_json:
        found |= {400: [code.MALFORMED_JSON], 408: [code.BODY_TIMEOUT], 413: [code.BODY_TOO_LARGE]}
        found[415] = [code.UNSUPPORTED_MEDIA_TYPE]
    return found


def _problem(description: str) -> Document:
    content = {"application/problem+json": {"schema": {"$ref": REFERENCE.format(model="Problem")}}}
    return {"description": description, "content": content}


PROBLEM: Document = {
    "type": "object",
    "description": "RFC 9457. A rejected value is never echoed.",
    "required": ["type", "title", "status", "detail", "code", "retryable"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "instance": {"type": "string"},
        "code": {"type": "string", "enum": [str(code) for code in errors.Code]},
        "request_id": {"type": ["string", "null"]},
        "retryable": {"type": "boolean"},
        "hint": {"type": "string"},
        "errors": {
            "type": "array",
            "maxItems": 50,
            "items": {
                "type": "object",
                "required": ["code", "message"],
                "properties": {
                    "pointer": {"type": "string", "description": "RFC 6901, into the body as it was sent"},
                    "parameter": {"type": "string", "description": "of the query, the path or the headers"},
                    "code": {"type": "string"},
                    "message": {"type": "string"},
                    "allowed": {"type": "array", "items": {"type": "string"}},
                    "did_you_mean": {"type": "string"},
                },
            },
        },
    },
}
