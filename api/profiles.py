"""Profiles: the compute that an operator offers, by name. Built-in ones unless a JSON file names others."""

from __future__ import annotations

import json
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from api.book.costs import Lent
from api.book.models import Worker
from training_core.contract.spec import ProfileName


class Profile(BaseModel):
    """`devices` slots of one kind on one host; the price is for all of them together."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: ProfileName
    device: Literal["cpu", "cuda"]
    devices: Annotated[int, Field(ge=1, le=64)]
    price_per_hour: Decimal = Decimal("0")
    currency: Annotated[str, Field(pattern="^[A-Z]{3}$")] = "USD"
    description: str = ""

    def lent(self) -> Lent:
        """What an attempt by this profile gets; a price of 0 is none."""
        price = self.price_per_hour or None
        return Lent(self.device, self.devices, self.name, price, self.currency if price else None)

    def serves(self, worker: Worker) -> bool:
        """Whether the worker has what the profile asks for, free or not."""
        return worker.device == self.device and worker.slots >= self.devices


BUILT_IN = [
    Profile(name="gpu", device="cuda", devices=1, description="One GPU"),
    Profile(name="gpu-2", device="cuda", devices=2, description="Two GPUs of one host"),
    Profile(name="gpu-4", device="cuda", devices=4, description="Four GPUs of one host"),
    Profile(name="gpu-8", device="cuda", devices=8, description="Eight GPUs of one host"),
    Profile(name="cpu", device="cpu", devices=1, description="One CPU slot: all cores of the host by default"),
    Profile(name="cpu-2", device="cpu", devices=2, description="Two ranks on CPU slots; for tests of distribution"),
]


class Profiles:
    """The offer, in the order of the file; `auto` takes the first one that a worker can serve."""

    def __init__(self, profiles: list[Profile]) -> None:
        self.by_name = {profile.name: profile for profile in profiles}

    @classmethod
    def load(cls, path: Path | None) -> Profiles:
        if path is None:
            return cls(BUILT_IN)
        return cls(TypeAdapter(list[Profile]).validate_python(json.loads(path.read_text())))

    def choose(self, name: str, workers: Iterable[Worker]) -> Profile | None:
        """The named profile; for `auto` the first whose device some worker has, one device where there is a choice."""
        if name != "auto":
            return self.by_name.get(name)
        devices = {worker.device for worker in workers}
        return next((profile for profile in self.by_name.values() if profile.device in devices), None)
