"""What is wrong with an answer: a fault of the server, silence, or something that OpenAPI does not say."""

from __future__ import annotations

import gzip
import json
import re
from typing import Any

import jsonschema_rs

from tests.fuzz.sending import Answer, Sent

CANARY = "AKIACANARY"
PROBLEM = "application/problem+json"


class Judge:
    """By one OpenAPI document. Schemas are compiled when they are first needed."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._document = document
        self._schemas: dict[str, jsonschema_rs.Validator] = {}
        self._templates = [(_pattern(template), template) for template in sorted(document["paths"])]

    def fault(self, sent: Sent, answer: Answer) -> str | None:
        """In words; None for an answer as it should be."""
        if answer.status <= 0:
            return _silence(sent, answer)
        if answer.status >= 500:
            return f"{answer.status}: {answer.body[:300]!r}"
        kind = answer.headers.get("content-type", "").partition(";")[0]
        if "request-id" not in answer.headers:  # the HTTP parser itself refused
            return None if answer.status == 400 and not sent.tidy else "there is no Request-Id"
        if sent.method == b"HEAD" or answer.status in (204, 304):
            return f"{answer.status} with a body" if answer.body else None
        body = gzip.decompress(answer.body) if answer.headers.get("content-encoding") == "gzip" else answer.body
        if answer.status >= 400:
            return self._problem(kind, answer.status, body)
        return self._success(sent, kind, answer.status, body)

    def _problem(self, kind: str, status: int, body: bytes) -> str | None:
        if kind != PROBLEM:
            return f"{status} as {kind}: {body[:200]!r}"
        problem = json.loads(body)
        if why := self._misfit({"$ref": "#/components/schemas/Problem"}, problem):
            return why
        if problem["status"] != status:
            return f"a problem says {problem['status']} in an answer of {status}"
        return "a rejected value comes back" if CANARY in body.decode() else None

    def _success(self, sent: Sent, kind: str, status: int, body: bytes) -> str | None:
        operation = self._operation(sent)
        if operation is None:
            return None if sent.method == b"OPTIONS" or sent.template == "" else "an unknown operation succeeded"
        told = operation["responses"].get(str(status))
        if told is None:
            return f"{status} is none of {', '.join(operation['responses'])}"
        schema = told.get("content", {}).get("application/json", {}).get("schema")
        if schema is None or kind != "application/json":
            return None if schema is None or status == 206 else f"{status} as {kind}"
        return self._misfit(schema, json.loads(body))

    def _operation(self, sent: Sent) -> dict[str, Any] | None:
        path = sent.target.decode("latin-1").partition("?")[0]
        exact = [template for pattern, template in self._templates if pattern.fullmatch(path)]
        for template in sorted(exact, key=lambda one: one.count("{")):
            found = self._document["paths"][template].get(sent.method.decode("latin-1").lower())
            if found is not None:
                return dict(found)
        return None

    def _misfit(self, schema: dict[str, Any], value: Any) -> str | None:
        name = json.dumps(schema, sort_keys=True)
        if name not in self._schemas:
            whole = {**schema, "components": self._document["components"]}
            self._schemas[name] = jsonschema_rs.Draft202012Validator(whole)
        error = next(iter(self._schemas[name].iter_errors(value)), None)
        return None if error is None else f"{list(error.instance_path)}: {error.message[:300]}"


def _silence(sent: Sent, answer: Answer) -> str | None:
    if answer.status == -1:
        return "no answer in time"
    return "the connection was closed without an answer" if sent.tidy else None


def _pattern(template: str) -> re.Pattern[str]:
    parts = ("[^/]+" if part.startswith("{") else re.escape(part) for part in template.split("/"))
    return re.compile("/".join(parts))
