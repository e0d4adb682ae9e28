"""What `PUT /v1/secrets/{name}` takes, and what is told of a secret afterwards: never its value."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, StringConstraints, field_validator, model_validator

from api.schemas.part import Answer, Instant
from training_core.contract.credentials import Credentials
from training_core.contract.spec import Part
from training_core.contract.uris import check_endpoint

Value = Annotated[str, StringConstraints(min_length=1, max_length=4096, pattern=r"^[\x20-\x7e]+$")]
Option = Annotated[str, StringConstraints(min_length=1, max_length=16_384, pattern=r"^[\x20-\x7e\r\n]+$")]


def _is_account(value: str) -> bool:
    return re.fullmatch(r"[a-z0-9]{3,24}", value) is not None


def _is_token(value: str) -> bool:
    """A service account's key as JSON, or an access token: not the name of a method, and not a path on the worker."""
    if value.lstrip().startswith("{"):
        try:
            return json.loads(value).get("type") in ("service_account", "authorized_user")
        except (ValueError, RecursionError):
            return False
    return re.fullmatch(r"ya29\.[A-Za-z0-9._-]{16,}", value) is not None


# Of gcsfs and adlfs, those that hold a secret and change nothing else: not where a request goes, and not to whose
# identity the libraries fall back when they have no secret.
OPTIONS: dict[str, Callable[[str], bool]] = {
    "account_name": _is_account, "account_key": bool, "sas_token": bool, "tenant_id": bool, "client_id": bool,
    "client_secret": bool, "token": _is_token,
}  # fmt: skip
# One of these must be there: without, the libraries would look for an identity of the worker's host.
ENOUGH = ({"token"}, {"account_key"}, {"sas_token"}, {"tenant_id", "client_id", "client_secret"})


class SecretBody(Part):
    """Credentials: `key` and `secret` (with `token` for temporary ones) for S3, `token` alone for `hf://`, `options`
    for `gs://` and `az://`, or `anonymous` for an S3 of your own that asks for none."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    key: Value | None = None
    secret: Value | None = None
    token: Value | None = None
    region: Annotated[str, StringConstraints(max_length=64, pattern=r"^[a-z0-9-]+$")] | None = None
    endpoint_url: Annotated[str, StringConstraints(max_length=512, pattern=r"^[\x21-\x7e]+$")] | None = None
    anonymous: bool = False
    options: Annotated[dict[str, Option], Field(max_length=len(OPTIONS))] = Field(
        default_factory=dict, description=f"of gcsfs or adlfs: {', '.join(OPTIONS)}"
    )

    @field_validator("endpoint_url")
    @classmethod
    def _endpoint(cls, url: str | None) -> str | None:
        return None if url is None else check_endpoint(url).address

    @field_validator("options")
    @classmethod
    def _options(cls, options: dict[str, str]) -> dict[str, str]:
        for name, value in options.items():
            if name not in OPTIONS:
                raise ValueError(f"options may be {', '.join(OPTIONS)}")
            if not OPTIONS[name](value):
                raise ValueError(_WRONG_OPTION[name])
        if options and not any(enough <= options.keys() for enough in ENOUGH):
            raise ValueError(
                "options need a token (gs), or for az an account_key, a sas_token, or tenant_id, client_id "
                "and client_secret"
            )
        return options

    @model_validator(mode="after")
    def _one_kind(self) -> SecretBody:
        if (self.key is None) != (self.secret is None):
            raise ValueError("key and secret go together")
        ways = [self.key or self.token, self.options, self.anonymous]
        if sum(map(bool, ways)) != 1:
            raise ValueError("give key and secret, or token, or options, or anonymous: one of them")
        return self

    def credentials(self) -> Credentials:
        return Credentials(**self.model_dump())


_WRONG_OPTION = {
    "account_name": "options.account_name is 3 to 24 small letters and digits",
    "token": "options.token is a service account's key as JSON text, or an access token (ya29.…)",
}


class SecretAnswer(Answer):
    object: Literal["secret"] = "secret"
    name: str
    kind: str = Field(description="what it holds: access_key, token, options or anonymous")
    fingerprint: str = Field(description="changes with the value; it cannot be computed without the server's key")
    version: int = Field(description="how many values it has had")
    created_at: Instant
    updated_at: Instant
