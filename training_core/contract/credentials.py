"""What opens a bucket or an account: the parts of a secret. Torch-free; the API, workers and readers share it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from training_core.contract.uris import check_endpoint

Kind = Literal["access_key", "token", "options", "anonymous"]

SHORTEST_HIDDEN = 4
HIDDEN = "***"


class Credentials(BaseModel):
    """One secret. Without `key` and `secret`, or with `anonymous`, requests are not signed. No part shows in a repr."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    endpoint_url: str | None = Field(default=None, repr=False)
    key: str | None = Field(default=None, repr=False)
    secret: str | None = Field(default=None, repr=False)
    token: str | None = Field(default=None, repr=False)
    region: str | None = Field(default=None, repr=False)
    anonymous: bool = False
    options: dict[str, str] = Field(
        default_factory=dict, repr=False, description="for gs and az: arguments of gcsfs and adlfs"
    )

    @field_validator("endpoint_url")
    @classmethod
    def _plain_endpoint(cls, url: str | None) -> str | None:
        return None if url is None else check_endpoint(url).address

    @property
    def kind(self) -> Kind:
        if self.key is not None:
            return "access_key"
        return "token" if self.token is not None else "options" if self.options else "anonymous"

    def options_for(self, scheme: str) -> dict[str, Any]:
        """Arguments of the fsspec file system of `scheme`."""
        if scheme == "hf":
            return {"token": self.token, **self.options}
        if not self.options:
            return {"token": "anon"} if scheme == "gs" else {"anon": True}
        options: dict[str, Any] = dict(self.options)
        if options.get("token", "").lstrip().startswith("{"):  # a service account's key, as Google hands it out
            options["token"] = json.loads(options["token"])
        return options

    def s3_options(self) -> dict[str, Any]:
        """Arguments of `s3fs.S3FileSystem`. Deadlines are short and retries bounded, so that nothing ever hangs."""
        anonymous = self.anonymous or not self.key
        options: dict[str, Any] = {
            "anon": anonymous,
            "endpoint_url": self.endpoint_url,
            "client_kwargs": {"region_name": self.region or "us-east-1"},
            # botocore retries connection errors, throttling and 5xx with jittered back-off; no other layer does.
            "config_kwargs": {
                "connect_timeout": 5,
                "read_timeout": 20,
                "retries": {"mode": "standard", "total_max_attempts": 4},
            },
            "skip_instance_cache": True,
            "use_listings_cache": False,
        }
        if not anonymous:
            options |= {"key": self.key, "secret": self.secret, "token": self.token}
        return options

    def hide_in(self, text: str) -> str:
        """`text` without any value of ours that nobody may see, whoever quoted it there."""
        for value in sorted(self._hidden(), key=len, reverse=True):
            text = text.replace(value, HIDDEN)
        return text

    def _hidden(self) -> Iterator[str]:
        """A value of several lines is hidden line by line, too: logs break there."""
        for value in (self.key, self.secret, self.token, *self.options.values()):
            for part in {value or "", *(value or "").splitlines()}:
                if len(part) >= SHORTEST_HIDDEN:
                    yield part


class OperatorEntry(Credentials):
    """An entry of the operator's file, and the names of the projects that may use it: `*` for all, none without."""

    projects: list[str] | Literal["*"] = Field(default_factory=list)

    def is_for(self, project: str) -> bool:
        return self.projects == "*" or project in self.projects
