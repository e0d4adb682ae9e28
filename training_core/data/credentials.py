"""Named credentials, read from the file that the worker provides. Values never leave this module but as options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator

from training_core.failure import Failed
from training_core.uris import check_endpoint
from training_core.wire import Reason


class Credentials(BaseModel):
    """One named entry. Without `key` and `secret`, or with `anonymous`, requests are not signed."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    endpoint_url: str | None = None
    key: str | None = None
    secret: str | None = None
    token: str | None = None
    region: str | None = None
    anonymous: bool = False
    options: dict[str, str] = Field(default_factory=dict, description="for gs and az: arguments of gcsfs and adlfs")

    @field_validator("endpoint_url")
    @classmethod
    def _plain_endpoint(cls, url: str | None) -> str | None:
        return url if url is None else check_endpoint(url).address

    def options_for(self, scheme: str) -> dict[str, Any]:
        """Arguments of the fsspec file system of `scheme`."""
        if scheme == "hf":
            return {"token": self.token, **self.options}
        if self.options:
            return dict(self.options)
        return {"token": "anon"} if scheme == "gs" else {"anon": True}

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


def read_credentials(file: Path | None, name: str | None) -> Credentials:
    """The entry called `name`, or unsigned access when no name is given. Raises `Failed(credentials_unknown)`."""
    if name is None:
        return Credentials(anonymous=True)
    entries = read_all(file)
    if name not in entries:
        raise Failed(
            Reason.CREDENTIALS_UNKNOWN,
            f"no credentials are called {name!r} on this worker",
            "ask the operator to add them to the worker's credentials file, or correct dataset.credentials",
        )
    return entries[name]


def read_all(file: Path | None) -> dict[str, Credentials]:
    """All entries; empty when there is no file. Raises `Failed(credentials_unknown)` for a file that is not valid."""
    if file is None or not file.exists():
        return {}
    try:
        return TypeAdapter(dict[str, Credentials]).validate_json(file.read_bytes())
    except (OSError, ValidationError) as problem:
        raise Failed(
            Reason.CREDENTIALS_UNKNOWN, "the worker's credentials file cannot be read", "ask the operator to mend it"
        ) from problem
