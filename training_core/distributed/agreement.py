"""What the writers of several ranks tell each other, in threads that must not take part in collectives."""

from __future__ import annotations

import json
import os
from datetime import timedelta
from functools import cached_property
from typing import Any

from torch import distributed

from training_core.contract.errors import Failed, Reason

TIMEOUT = timedelta(minutes=30)


class Agreement:
    """Through the store in which the ranks found each other, over a connection of its own.

    Rank 0 hears from all others under a key that is used once.
    """

    def __init__(self, rank: int, world_size: int) -> None:
        self.rank, self.world_size = rank, world_size

    @property
    def first(self) -> bool:
        return self.rank == 0

    def tell(self, key: str, message: Any) -> None:
        """`message`, or why there is none, to rank 0; says nothing on rank 0 itself."""
        if self.first:
            return
        match message:
            case Failed():
                words = {"failed": [message.reason, message.message, message.hint]}
            case Exception():
                words = {"failed": [Reason.TRAINING_ERROR, f"{type(message).__name__}: {message}", None]}
            case _:
                words = {"message": message}
        self._store.set(f"{key}/{self.rank}", json.dumps(words))

    def hear(self, key: str) -> list[Any]:
        """On rank 0, the messages of all others in their order. Raises the first `Failed` among them."""
        heard = []
        for rank in range(1, self.world_size):
            words = json.loads(self._store.get(f"{key}/{rank}"))
            if "failed" in words:
                reason, message, hint = words["failed"]
                raise Failed(Reason(reason), f"rank {rank}: {message}", hint)
            heard.append(words["message"])
        return heard

    @cached_property
    def _store(self) -> Any:
        host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        store = distributed.TCPStore(host, port, is_master=False, timeout=TIMEOUT)  # type: ignore[attr-defined]
        return distributed.PrefixStore("trainyard/checkpoints", store)  # type: ignore[attr-defined]
