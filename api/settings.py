"""Settings of the control plane, from environment variables that begin with `TRAINYARD_`."""

from __future__ import annotations

import re
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from training_core.contract import settings as process_settings
from training_core.contract.sealing import parse_keys
from training_core.contract.uris.links import ALIASES

# What the training can read at all, each where its fsspec package is installed; `zip` and `tar` are containers.
KNOWN_SCHEMES = ("file", "s3", "gs", "az", "abfs", "http", "https", "hf", "zip", "tar", "dvc")

LEAST_KEY_CHARACTERS = 32
_ORIGIN = re.compile(r"https?://[a-z0-9.-]+(:[0-9]{1,5})?|https?://\[[0-9a-f:]+\](:[0-9]{1,5})?")


class Settings(BaseSettings):
    """`database_url` is needed by api and control, `redis_url` by control alone."""

    model_config = SettingsConfigDict(env_prefix="TRAINYARD_", extra="ignore", frozen=True)

    mode: Literal["development", "production"] = Field(
        default="development", description="production refuses to start with a weak password or an open Redis"
    )
    database_url: SecretStr = Field(description="PostgreSQL, as postgresql+psycopg://user:password@host/database")
    redis_url: SecretStr = Field(
        default=SecretStr("redis://127.0.0.1:6379/0"), description="Valkey or Redis; control and the workers use it"
    )
    store: str = Field(default="file:///var/lib/trainyard/store", description="fsspec URI below which checkpoints lie")
    store_credentials_file: Path | None = Field(
        default=None, description="JSON with a secret named `store`, where the store is a bucket"
    )
    secrets_key: SecretStr = Field(
        default=SecretStr(""),
        description="keys of 32 bytes in base64, with commas: the first seals secrets, all open them; the workers' too",
    )
    credentials_file: Path | None = Field(
        default=None,
        description="JSON of the operator's credentials by name, as the workers have it; values may be left out here",
    )
    profiles_file: Path | None = Field(default=None, description="JSON list of profiles; None takes the built-in ones")
    allowed_schemes: str = Field(
        default="file,s3,zip,tar",
        description=f"URI schemes that datasets and weights may use, out of {', '.join(KNOWN_SCHEMES)}",
    )
    body_limit_bytes: int = Field(default=1_000_000, ge=1000, description="of a request whose body is JSON")
    key_cache_seconds: float = Field(
        default=3.0,
        ge=0,
        description="a revoked key may be taken for so long where the database's notification is lost",
    )
    allowed_origins: str = Field(
        default="", description="origins whose pages may ask the API, as https://app.example.org, with commas"
    )
    signing_key: SecretStr = Field(
        default=SecretStr(""),
        description="32 characters of chance or more, the same for all API processes; it signs stream tokens. "
        "Without it each process takes its own tokens alone",
    )
    stream_token_seconds: int = Field(default=300, ge=10, le=3600, description="how long a stream token holds")
    receive_seconds: float = Field(default=20.0, gt=0, description="a request body must have arrived within this time")
    upload_limit_bytes: int = Field(default=50 * 2**30, ge=1, description="the largest dataset that can be uploaded")
    upload_quota_bytes: int = Field(
        default=200 * 2**30, ge=0, description="what the uploads of one project may take in all"
    )
    upload_files_limit: int = Field(
        default=100_000, ge=1, description="files of one upload; an archive holds any number"
    )
    upload_part_limit_bytes: int = Field(default=2**30, ge=1, description="the largest part of an upload in parts")
    upload_stall_seconds: float = Field(
        default=30.0, gt=0, description="an upload of which less than 64 KiB arrive in such a time is cut off"
    )
    upload_expiry_hours: float = Field(
        default=24.0, gt=0, description="an upload in parts to which nothing came for so long is deleted"
    )
    host: str = Field(default="127.0.0.1", description="address that `python -m api` listens at")
    port: int = Field(default=8000, ge=0, le=65535, description="port that `python -m api` listens at")
    header_seconds: float = Field(
        default=10.0, gt=0, description="the headers of a request must have arrived within this time"
    )
    keep_alive_seconds: int = Field(default=15, ge=0, description="a connection without a request is closed after it")
    connections: int = Field(
        default=2000,
        ge=1,
        description="at a time; one more takes the place of the one that has asked for nothing longest",
    )
    drain_seconds: int = Field(default=10, ge=0, description="for open requests to end after SIGTERM")
    places: int = Field(
        default=10, ge=1, description="requests that each process works on at a time; the others wait for a place"
    )
    patience_seconds: float = Field(
        default=0.5, ge=0, description="a request that got no place within it is answered with 503 and Retry-After"
    )
    rate_requests: int = Field(default=1000, ge=0, description="of a key within RATE_SECONDS; 0: no limit")
    rate_seconds: float = Field(default=10.0, gt=0, description="window of RATE_REQUESTS")
    rate_guesses: int = Field(
        default=30,
        ge=0,
        description="without a valid key, of an address within RATE_GUESSES_SECONDS; 0: no limit",
    )
    rate_guesses_seconds: float = Field(default=60.0, gt=0, description="window of RATE_GUESSES")
    open_waits: int = Field(default=200, ge=0, description="with `?wait=`, that a key may have open; 0: no limit")
    open_streams: int = Field(default=200, ge=0, description="streams that a key may have open; 0: no limit")
    open_downloads: int = Field(default=32, ge=0, description="downloads that a key may have open; 0: no limit")
    open_uploads: int = Field(default=16, ge=0, description="uploads that a key may have open; 0: no limit")
    wait_limit_seconds: float = Field(default=60.0, ge=0, description="the longest that `?wait=` holds an answer")
    pool_size: int = Field(default=10, ge=1, description="connections to PostgreSQL of each process")
    worker_suspected_seconds: float = Field(
        default=5.0, gt=0, description="silence after which jobs say that their worker is not heard"
    )
    worker_lost_seconds: float = Field(
        default=15.0, gt=0, description="silence after which a worker is lost and its jobs go on elsewhere"
    )
    reserve_after_seconds: float = Field(
        default=300.0, ge=0, description="a job that waited so long keeps the next worker that it fits on for itself"
    )
    unschedulable_after_seconds: float = Field(
        default=0.0, ge=0, description="a job that no worker could ever do ends as `unschedulable` after it; 0: never"
    )
    claim_seconds: float = Field(default=3.0, gt=0, description="a ticket that nobody claims is sent again after it")
    losses_limit: int = Field(
        default=3, ge=1, description="lost attempts in a row without a new checkpoint before a job fails"
    )
    public_url: str = Field(
        default="",
        description="how clients reach the API, as https://trainyard.example.org; URLs it tells begin so",
    )

    @field_validator("secrets_key")
    @classmethod
    def _readable(cls, keys: SecretStr) -> SecretStr:
        parse_keys(keys.get_secret_value())
        return keys

    @field_validator("allowed_schemes")
    @classmethod
    def _known(cls, allowed: str) -> str:
        for scheme in _split(allowed):
            if scheme not in KNOWN_SCHEMES:
                nearest = get_close_matches(scheme, KNOWN_SCHEMES, n=1)
                meant = f"; did you mean {nearest[0]}?" if nearest else ""
                raise ValueError(f"{scheme!r} is none of the URI schemes {', '.join(KNOWN_SCHEMES)}{meant}")
        return allowed

    @field_validator("allowed_origins")
    @classmethod
    def _origins(cls, origins: str) -> str:
        for origin in _split(origins):
            if not _ORIGIN.fullmatch(origin):
                raise ValueError("an origin is a scheme and a host, as https://app.example.org, without a path")
        return origins

    @field_validator("signing_key")
    @classmethod
    def _long(cls, key: SecretStr) -> SecretStr:
        if 0 < len(key.get_secret_value()) < LEAST_KEY_CHARACTERS:
            raise ValueError(f"it has less than {LEAST_KEY_CHARACTERS} characters")
        return key

    @cached_property
    def origins(self) -> list[str]:
        return _split(self.allowed_origins)

    @cached_property
    def schemes(self) -> frozenset[str]:
        return frozenset(ALIASES.get(scheme, scheme) for scheme in _split(self.allowed_schemes))


def _split(schemes: str) -> list[str]:
    return [scheme.strip() for scheme in schemes.split(",") if scheme.strip()]


if __name__ == "__main__":
    process_settings.command(Settings, "api.settings")
