"""Settings of a worker, from variables that begin with `TRAINYARD_`. There is no database URL among them."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from training_core.contract import settings as process_settings
from training_core.contract.run_dir import LoaderKind
from training_core.contract.sealing import parse_keys
from training_core.contract.uris.prefixes import check_prefix
from training_core.outgoing import Networks


def _host_name() -> str:
    return re.sub(r"[^a-z0-9-]+", "-", socket.gethostname().lower()).strip("-") or "worker"


class Settings(BaseSettings):
    """Of one host."""

    model_config = SettingsConfigDict(env_prefix="TRAINYARD_", extra="ignore", frozen=True)

    mode: Literal["development", "production"] = Field(
        default="development", description="production refuses to start with a weak password or an open Redis"
    )
    redis_url: SecretStr = Field(description="the Valkey or Redis of the control plane, with its password")
    store: str = Field(description="fsspec URI below which checkpoints are written")
    worker_name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9-]{0,62}$", default_factory=_host_name,
        description="unique among the workers; the name of the host where it is not set",
    )  # fmt: skip
    work_dir: Path = Field(default=Path(".trainyard/work"), description="run dirs and logs of attempts")
    cache_dir: Path = Field(default=Path(".trainyard/cache"), description="prepared data, shared by all jobs")
    data_roots: Annotated[list[Path], NoDecode] = Field(
        default_factory=list,
        description="folders that `file://` may read, separated like PATH; a relative path starts at the first",
    )
    private_dirs: Annotated[list[Path], NoDecode] = Field(
        default=[Path(".trainyard")], validate_default=True,
        description="folders that are never data, beside the store, the cache and the work folder; separated like PATH",
    )  # fmt: skip
    access_file: Path | None = Field(
        default=None, description="TOML or JSON of roots and URI prefixes by project; see docs/secrets.md"
    )
    secrets_key: SecretStr = Field(
        default=SecretStr(""), description="as the API has it: keys that open the secrets of projects, with commas"
    )
    credentials_file: Path | None = Field(
        default=None, description="JSON of the operator's credentials by name, each with the projects that may use it"
    )
    store_credentials_file: Path | None = Field(
        default=None, description="JSON with a secret named `store`, where the store is a bucket"
    )
    cache_bytes: int = Field(default=0, ge=0, description="of prepared data on this host; 0: half of the disk")
    allowed_uris: Annotated[list[str], NoDecode] = Field(
        default_factory=list,
        description="prefixes of URIs that datasets may lie at, with commas; without any every bucket, no web address",
    )
    allowed_networks: Annotated[list[str], NoDecode] = Field(
        default_factory=list,
        description="networks and hosts beside the public internet that data and weights may be fetched from, with "
        "commas: `10.0.0.0/8`, `minio:9000`; the store and the endpoints in the operator's secrets need no entry",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="auto takes the GPUs if there are any")
    loader: LoaderKind = Field(
        default="auto", description="who makes batches; see training_core.contract.run_dir.RunSpec"
    )
    slots: int = Field(default=0, ge=0, le=64, description="0: one for each GPU, or a single one for all cores")
    warm_launcher: bool = Field(default=True, description="keep a process ready that has imported torch")
    launcher_orders: int = Field(default=500, ge=1, description="forks before the launcher is replaced")
    slot_wait_seconds: float = Field(default=10.0, ge=0, description="before prepared work is given back")
    ahead_wait_seconds: float = Field(default=900.0, ge=0, description="the same for a trial of a search, sent ahead")
    attempt_memory_bytes: int = Field(default=0, ge=0, description="memory.max of an attempt's cgroup; 0: no limit")
    preparation_memory_bytes: int = Field(
        default=0, ge=0, description="that preparing a dataset may take; 0: a quarter of the host, at least 2 GiB"
    )
    stop_grace_seconds: float = Field(default=120.0, description="for the checkpoint after a stop was asked for")
    term_grace_seconds: float = Field(default=15.0, description="between SIGTERM and SIGKILL")
    stall_seconds: float = Field(default=1800.0, description="without a new report before a run counts as stalled")

    @field_validator("secrets_key")
    @classmethod
    def _readable(cls, keys: SecretStr) -> SecretStr:
        parse_keys(keys.get_secret_value())
        return keys

    @field_validator("data_roots", "private_dirs", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return [part for part in value.split(os.pathsep) if part] if isinstance(value, str) else value

    @field_validator("allowed_uris")
    @classmethod
    def _are_prefixes(cls, prefixes: list[str]) -> list[str]:
        for prefix in prefixes:
            check_prefix(prefix)
        return prefixes

    @field_validator("allowed_networks")
    @classmethod
    def _are_networks(cls, entries: list[str]) -> list[str]:
        Networks.of(entries)
        return entries

    @field_validator("allowed_uris", "allowed_networks", mode="before")
    @classmethod
    def _split_uris(cls, value: object) -> object:
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @field_validator("work_dir", "cache_dir")
    @classmethod
    def _absolute(cls, path: Path) -> Path:
        return path.absolute()

    @field_validator("private_dirs")
    @classmethod
    def _all_absolute(cls, paths: list[Path]) -> list[Path]:
        return [path.absolute() for path in paths]


if __name__ == "__main__":
    process_settings.command(Settings, "worker.settings")
