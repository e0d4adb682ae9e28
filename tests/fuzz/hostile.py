"""Requests that a careless or malicious client might send, made from the OpenAPI document and a seed."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from typing import Any
from urllib.parse import quote

from tests.fuzz.judging import CANARY
from tests.fuzz.sending import Headers, Sent

TEXTS = [
    "", " ", "\0", "a\0b", "\x7f", "\n", "\ud800", "é", "e\u0301", "\U0001f600", "../../etc/passwd", "%00", "%2e%2e%2f",
    "'", '"', "';--", "${7*7}", "{{7*7}}", "<script>", "\\", "a" * 65, "a" * 300, "null", "true", "NaN", "-0", "1e999",
    "0x10", "\u0661", "9" * 30, "[" * 500, "{" * 500, "*", 'W/"v1"', '"v1", W/"v2"', "bytes=0-", "bytes=5-2", "auto",
    "-1", "0", "1", "2147483648", "9223372036854775808", "1.5", "2026-01-01T00:00:00Z", "0001-01-01T00:00:00Z",
    "9999-12-31T23:59:59+14:00", "a:b", "a,b", ",", ":", "=", "&", ";", "%", "%ff", "%zz",
]  # fmt: skip
VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63), 10**40, 10**400, 0.5, -0.0, 1e308, float("inf"), float("nan"),
    [], {}, [[]], [None], {"": None}, {"a": {"a": {"a": {}}}}, "s3://pets/", "file:///data", "auto", CANARY,
    f"s3://{CANARY}:{CANARY}@bucket/x", "http://169.254.169.254/", "s3://localhost:1#/x", "job_" + "0" * 26, *TEXTS,
]  # fmt: skip
METHODS = [b"GET", b"POST", b"PUT", b"PATCH", b"DELETE", b"HEAD", b"OPTIONS", b"TRACE", b"get", b"FOO"]
GIVEN_HEADERS = {
    b"If-None-Match": ['"x"', "*", 'W/"v1"', '"a", "b"', '"', "W/"],
    b"If-Match": ["*", '"x"'],
    b"If-Range": ['"x"'],
    b"Range": ["bytes=0-", "bytes=-1", "bytes=9-1", "bytes=0-0,2-3", "lines=1-2", "bytes=" + "9" * 17 + "-"],
    b"Last-Event-ID": ["1", "1.5", "-1", "9" * 18, "9" * 60, "x"],
    b"Idempotency-Key": ["k", "k2", "é", "a" * 255, "a" * 300],
    b"Request-Id": ["mine", "a b", "x" * 100],
    b"Accept-Encoding": ["gzip", "gzip;q=0", "*", "br", "gzip, ;q=,"],
    b"Accept": ["text/html", "*/*", "x"],
    b"Origin": ["null", "https://a.example"],
    b"Prefer": ["wait=1"],
    b"X-Forwarded-For": ["1.2.3.4", "x"],
    b"Expect": ["200-ok"],
    b"Cookie": ["a=b"],
    b"traceparent": ["00-0-0-0"],
}
BAD_KEYS = [b"Bearer", b"Basic x", b"Bearer ty_x", b"\xff", b"Bearer st_x.y", b"Bearer " + b"a" * 5000]
TYPES = ["application/json", "application/json; charset=utf-8", "application/json; charset=x", "text/plain", "x", ""]
Pools = Mapping[str, Sequence[str]]


class Hostile:
    """An endless source: the same seed makes the same requests of the same document and ids."""

    def __init__(self, document: Mapping[str, Any], pools: Pools, key: str, seed: str) -> None:
        self._pools, self._key, self._dice = pools, key.encode(), random.Random(seed)
        self._operations = [
            (method.upper().encode(), template, operation)
            for template, every in document["paths"].items()
            for method, operation in every.items()
        ]

    def next(self) -> Sent:
        method, template, operation = self._dice.choice(self._operations)
        if self._one_in(100):
            return self._untidy(template)
        target = self._path(template) + self._query(operation)
        headers, body, pieces = self._headers(), None, 0
        content = operation.get("requestBody", {}).get("content", {})
        if content or self._one_in(30):
            body = self._body(content.get("application/json", {}).get("examples", {}))
            pieces = self._dice.randint(1, 5) if self._one_in(5) else 0
            kind = "application/json" if self._dice.random() < 0.95 else self._dice.choice(TYPES)
            headers.append((b"Content-Type", kind.encode()))
        if self._one_in(25):
            method = self._dice.choice(METHODS)
        return Sent(method, target, template, headers, body, pieces)

    def _one_in(self, count: int) -> bool:
        return self._dice.random() < 1 / count

    def _untidy(self, template: str) -> Sent:
        """What no parser of HTTP should take."""
        path = self._path(template)
        return self._dice.choice(
            [
                Sent(b"GET", path + b" x", template, tidy=False),
                Sent(b"GET", path, template, [(b"A\0B", b"x")], tidy=False),
                Sent(b"GET", path, template, [(b"Authorization", b"Bearer a\0b")], tidy=False),
                Sent(b"GET", path, template, [(b"Content-Length", b"-1")], tidy=False),
                Sent(b"GET", path, template, [(b"Content-Length", b"x")], tidy=False),
                Sent(b"POST", path, template, [(b"Transfer-Encoding", b"chunked, x")], tidy=False),
                Sent(b"G\x01T", path, template, tidy=False),
                Sent(b"GET", b"/\xff\xfe", template, tidy=False),
                Sent(b"GET", path, template, [(b"X", b"a" * 70_000)], tidy=False),
                Sent(b"GET", path + b"?" + b"a=b&" * 20_000, template, tidy=False),
            ]
        )

    def _path(self, template: str) -> bytes:
        parts = []
        for part in template.split("/"):
            if part.startswith("{"):
                known = self._pools.get(part.strip("{}"), ())
                text = self._dice.choice(known) if known and self._dice.random() < 0.85 else self._text()
                parts.append(self._quoted(text) or "x")
            else:
                parts.append(part)
        path = "/".join(parts)
        if self._one_in(40):
            change = self._dice.choice(["/", "//", "/..", "/.", "%00", "%2f", "%ff", ".json", ";a=b", "?", "#x"])
            path = path + change if self._one_in(2) else path.replace("/v1", f"/v1{change}", 1)
        return path.replace("#", "%23").encode()

    def _query(self, operation: Mapping[str, Any]) -> bytes:
        pairs = []
        for parameter in operation.get("parameters", ()):
            if parameter["in"] == "query" and self._one_in(3):
                pairs += [(parameter["name"], self._for(parameter)) for _ in range(2 if self._one_in(10) else 1)]
        if self._one_in(25):
            pairs.append((self._text(), self._text()))
        raw = "&".join(f"{self._quoted(name)}={self._quoted(value)}" for name, value in pairs)
        return f"?{raw}".encode() if raw else b""

    def _for(self, parameter: Mapping[str, Any]) -> str:
        schema = parameter.get("schema", {})
        kinds = {one.get("type") for one in schema.get("anyOf", [schema])}
        if self._one_in(3):
            return self._text()
        if "integer" in kinds or "number" in kinds:
            return str(self._dice.choice([0, 1, 2, 20, 100, 1000, 0.5, -1]))
        if "boolean" in kinds:
            return self._dice.choice(["true", "false"])
        words = [
            "queued", "running,failed", "number", "-value", "value:0.5", "team:a", "0,1", "job.created", "metric",
            "validation/accuracy", "model.safetensors", "model.onnx", "2026-01-01T00:00:00Z", "change", "terminal",
            *self._pools.get("after", ()), *self._pools.get("job_id", ()),
        ]  # fmt: skip
        return self._dice.choice(words)

    def _headers(self) -> Headers:
        found: Headers = [] if self._one_in(30) else [(b"Authorization", b"Bearer " + self._key)]
        if self._one_in(40):
            found = [
                (
                    b"Authorization",
                    self._dice.choice([b"Bearer", b"Basic x", b"Bearer ty_x", b"\xff", b"Bearer st_x.y"]),
                )
            ]
        for name, values in GIVEN_HEADERS.items():
            if self._one_in(15):
                found.append((name, self._dice.choice(values).encode()))
        return found

    def _body(self, examples: Mapping[str, Any]) -> bytes:
        known = [one["value"] for one in examples.values()] or [{}]
        document = deepcopy(self._dice.choice(known))
        for _ in range(self._dice.choice([0, 1, 1, 2, 3, 8])):
            document = self._mutated(document)
        text = json.dumps(document, ensure_ascii=self._one_in(2))
        body = text.encode(errors="surrogatepass")
        return self._torn(body) if self._one_in(8) else body

    def _mutated(self, document: Any) -> Any:
        places = list(_places(document))
        parent, name = self._dice.choice(places) if places else (None, None)
        if parent is None or self._one_in(20):
            return deepcopy(self._dice.choice(VALUES))
        value = deepcopy(self._dice.choice(VALUES))
        match self._dice.randrange(5):
            case 0 if isinstance(parent, dict):
                parent[self._text()] = value
            case 1 if isinstance(parent, dict):
                parent[str(name)[:-1] + self._dice.choice("abcs")] = parent.pop(name)
            case 2 if isinstance(parent, list):
                parent += [value] * self._dice.choice([1, 5, 300])
            case 3:
                parent[name] = [parent[name]]
            case _:
                parent[name] = value
        return document

    def _torn(self, body: bytes) -> bytes:
        at = self._dice.randrange(len(body) + 1)
        torn = [
            body[:at], body[:at] + b"\xff" + body[at:], b"\xef\xbb\xbf" + body, body + body, b"[" * 5000,
            b'{"a":' * 2000,
            body.decode(errors="replace").encode("utf-16"), body[:at] + b"\0" + body[at:], b" " * 20_000 + body,
            body.replace(b"{", b'{"task":1,"task":2,', 1), b"9" * 3000, b"", b"\x1f\x8b\x08\x00",
            body.replace(b":", b"::", 1),
        ]  # fmt: skip
        return self._dice.choice(torn)

    def _text(self) -> str:
        if self._one_in(4):
            return "".join(chr(self._dice.randrange(0x3000)) for _ in range(self._dice.randrange(9)))
        return self._dice.choice(TEXTS)

    def _quoted(self, text: str) -> str:
        return quote(text.encode(errors="surrogatepass"), safe="" if self._one_in(2) else ",:;*()!~'@$")


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in list(inside):
        yield value, name
        yield from _places(inner)
