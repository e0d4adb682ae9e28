"""Profiles and workers."""

from __future__ import annotations

from pydantic import Field

from api.schemas.part import Answer, Instant


class ProfileAnswer(Answer):
    name: str
    device: str
    devices: int
    price_per_hour: str
    currency: str
    description: str
    available: bool = Field(description="a live worker can serve it at all")
    free: int = Field(description="how many such jobs could start now")


class WorkerAnswer(Answer):
    name: str
    host: str
    status: str
    device: str
    device_name: str
    slots: int
    slots_free: int = Field(description="slots that no training holds; jobs whose data is being prepared hold none")
    cores: int
    memory_bytes: int
    device_memory_bytes: int = Field(description="of one GPU; 0 where there is none")
    cpu_features: list[str] = Field(description="instruction sets that decide about precision")
    draining: bool
    jobs: list[str]
    dataset_checks: list[str]
    last_seen_at: Instant
    version: str
