"""What OpenAPI says of streams: server-sent events have no description of their own in it before 3.2."""

from __future__ import annotations

from typing import Any

from api import schemas
from api.event_types import EVENT_TYPES

Document = dict[str, Any]
REFERENCE = "#/components/schemas/"
# By the name of a message: the schema of its data. All other names are types of events.
OTHERS = {"metrics": "MetricsAnswer", "progress": "Progress", "done": "StreamEnd", "closed": "StreamClosed"}


def stream_schemas() -> Document:
    """The message, each kind of its data, and the types of events."""
    types: Document = {
        "description": "An open set: pass over a type that you do not know.\n\n"
        + "\n".join(f"- `{name}`: {means}" for name, means in EVENT_TYPES.items()),
        "anyOf": [{"type": "string", "enum": list(EVENT_TYPES)}, {"type": "string"}],
    }
    made = {"EventType": types, "StreamMessage": _message()}
    for model in (schemas.StreamEnd, schemas.StreamClosed):
        made[model.__name__] = model.model_json_schema()
    return made


def _message() -> Document:
    data = [{"$ref": f"{REFERENCE}{name}"} for name in ("EventAnswer", *OTHERS.values())]
    by_name = ", ".join(f"`{event}`: {schema}" for event, schema in OTHERS.items())
    return {
        "type": "object",
        "description": f"One server-sent event. `data` is by `event`: {by_name}; for all others EventAnswer.",
        "required": ["event", "data"],
        "properties": {
            "event": {"anyOf": [{"$ref": f"{REFERENCE}EventType"}, {"type": "string", "enum": list(OTHERS)}]},
            "id": {"type": "string", "description": "`<seq>.<step>`; goes back as `Last-Event-ID`"},
            "data": {
                "type": "string", "contentMediaType": "application/json", "contentSchema": {"oneOf": data}
            },
        },
    }  # fmt: skip


def stream_responses() -> Document:
    message = {"$ref": f"{REFERENCE}StreamMessage"}
    text = "Messages as `id: 7.120`, `event: checkpoint.saved`, `data: {…}`, each ended by an empty line"
    content = {"text/event-stream": {"schema": {"type": "string", "description": text}, "itemSchema": message}}
    return {
        "200": {"description": "What happened, and then what happens, until the job has ended", "content": content},
        "204": {"description": "The job has ended, and `Last-Event-ID` is its end: an EventSource stops here"},
    }
