"""Settings of the control plane, from environment variables that begin with `TRAINYARD_`."""

from __future__ import annotations

from difflib import get_close_matches
from functools import cached_property
from pathlib import Path

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

# What the training can read at all, each where its fsspec package is installed; `zip` and `tar` are containers.
KNOWN_SCHEMES = ("file", "s3", "gs", "az", "abfs", "http", "https", "hf", "zip", "tar", "dvc")


class Settings(BaseSettings):
    """`database_url` is needed by api and control, `redis_url` by control alone."""

    model_config = SettingsConfigDict(env_prefix="TRAINYARD_", extra="ignore", frozen=True)

    database_url: SecretStr
    redis_url: SecretStr = SecretStr("redis://127.0.0.1:6379/0")
    store: str = Field(default="file:///var/lib/trainyard/store", description="fsspec URI below which checkpoints lie")
    store_credentials_file: Path | None = None
    profiles_file: Path | None = Field(default=None, description="JSON list of profiles; None takes the built-in ones")
    allowed_schemes: str = Field(
        default="file,s3,zip,tar", description=f"URI schemes that a dataset may use, out of {', '.join(KNOWN_SCHEMES)}"
    )
    body_limit_bytes: int = 1_000_000
    receive_seconds: float = Field(default=20.0, description="a request body must have arrived within this time")
    wait_limit_seconds: float = 60.0
    pool_size: int = 10
    worker_suspected_seconds: float = 5.0
    worker_lost_seconds: float = 15.0
    reserve_after_seconds: float = Field(
        default=300.0, ge=0, description="a job that waited so long keeps the next worker that it fits on for itself"
    )
    claim_seconds: float = Field(default=3.0, description="a ticket without a claim is sent again after this time")
    losses_limit: int = Field(
        default=3, description="lost attempts in a row without a new checkpoint before a job fails"
    )
    public_url: str = ""

    @field_validator("allowed_schemes")
    @classmethod
    def _known(cls, allowed: str) -> str:
        for scheme in _split(allowed):
            if scheme not in KNOWN_SCHEMES:
                nearest = get_close_matches(scheme, KNOWN_SCHEMES, n=1)
                meant = f"; did you mean {nearest[0]}?" if nearest else ""
                raise ValueError(f"{scheme!r} is none of the URI schemes {', '.join(KNOWN_SCHEMES)}{meant}")
        return allowed

    @cached_property
    def schemes(self) -> frozenset[str]:
        return frozenset(_split(self.allowed_schemes))


def _split(schemes: str) -> list[str]:
    return [scheme.strip() for scheme in schemes.split(",") if scheme.strip()]
