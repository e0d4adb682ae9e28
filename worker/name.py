"""A worker's name is its own while it lives: taken in Redis with a lease, kept by every heartbeat.

A frozen worker whose lease ran out finds its name free, or another's; it says nothing under a name that is another's.
All of it is decided by Redis, one script at a time.
"""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import cast

import psutil  # type: ignore[import-untyped]
import redis
from pydantic import BaseModel, ConfigDict, ValidationError

from training_core.contract.messages import NAME_LEASE_SECONDS, WORKERS_HASH, name_key

LOOK_SECONDS = 0.2

# KEYS: the claim, the heartbeats. ARGV: our claim, milliseconds, the name, the heartbeat or "".
_KEEP = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return holder end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
if ARGV[4] ~= '' then redis.call('HSET', KEYS[2], ARGV[3], ARGV[4]) end
return false
"""
# KEYS as before. ARGV: our claim, the name.
_LEAVE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('HDEL', KEYS[2], ARGV[2])
return redis.call('DEL', KEYS[1])
"""
# ARGV: the claim of a process that is known to be dead.
_FREE = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"


class NameTaken(Exception):
    """Another worker lives under this name."""

    def __init__(self, name: str, holder: Holder) -> None:
        super().__init__(
            f"A worker named {name} is running already, on {holder.host} (process {holder.pid}): "
            "set TRAINYARD_WORKER_NAME to another name, or stop that one"
        )


class Holder(BaseModel):
    """Whose claim it is. Within one `system` (a boot, a namespace of processes) `pid` and `born` say who lives."""

    model_config = ConfigDict(frozen=True)

    incarnation: str = ""
    host: str = "another host"
    system: str = ""
    pid: int = 0
    born: float = 0.0

    @classmethod
    def me(cls, incarnation: str) -> Holder:
        born = psutil.Process().create_time()
        return cls(incarnation=incarnation, host=socket.gethostname(), system=_system(), pid=os.getpid(), born=born)

    @classmethod
    def of(cls, claim: bytes) -> Holder:
        try:
            return cls.model_validate_json(claim)
        except ValidationError:
            return cls()

    def is_dead(self) -> bool:
        """Known only of processes that we could see."""
        if not self.system or self.system != _system():
            return False
        try:
            process = psutil.Process(self.pid)
            return bool(process.create_time() != self.born or process.status() == psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return True


class Name:
    """`take` it before any work, `keep` it with each heartbeat, `leave` it at the end."""

    def __init__(self, client: redis.Redis, name: str, incarnation: str) -> None:
        self._redis, self.name = client, name
        self._claim = Holder.me(incarnation).model_dump_json()

    def take(self) -> None:
        """Raises `NameTaken` while somebody lives under it. One that died is waited for, its lease at the most."""
        seen: int | None = None
        while (holder := self.keep()) is not None:
            if holder.is_dead():
                self._redis.eval(_FREE, 1, name_key(self.name), holder.model_dump_json())
                continue
            left = self._redis.pttl(name_key(self.name))
            if seen is not None and left > seen:  # somebody has prolonged it
                raise NameTaken(self.name, holder)
            seen = left
            time.sleep(LOOK_SECONDS)

    def keep(self, heartbeat: str = "") -> Holder | None:
        """Prolong our claim and say that we live; where the name is another's, nothing is said, and whose it is."""
        lease = int(NAME_LEASE_SECONDS * 1000)
        keys = [name_key(self.name), WORKERS_HASH]
        found = self._redis.eval(_KEEP, len(keys), *keys, self._claim, lease, self.name, heartbeat)
        return Holder.of(cast("bytes", found)) if found else None

    def leave(self) -> None:
        """Free the name and take the heartbeat away, if they are ours."""
        keys = [name_key(self.name), WORKERS_HASH]
        self._redis.eval(_LEAVE, len(keys), *keys, self._claim, self.name)


def _system() -> str:
    """What process ids mean something in: this boot of this kernel, and the namespace in it. Empty where unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""
