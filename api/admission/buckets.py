"""Token buckets and counts, in the memory of one process. Those of whoever was silent long are forgotten."""

from __future__ import annotations

import math
import time
from collections import Counter, OrderedDict
from dataclasses import dataclass

MOST_REMEMBERED = 20_000


@dataclass
class _Bucket:
    tokens: float
    at: float


class Buckets:
    """`quota` requests at once, and as many again within each `window_seconds`; a quota of 0 limits nobody."""

    def __init__(self, quota: int, window_seconds: float) -> None:
        self.quota, self.window_seconds = quota, window_seconds
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def take(self, who: str) -> float:
        """0 when there was a token; else the seconds until there is one."""
        if not self.quota:
            return 0.0
        bucket = self._filled(who)
        if bucket.tokens >= 1:
            bucket.tokens -= 1
            return 0.0
        return (1 - bucket.tokens) * self.window_seconds / self.quota

    def give_back(self, who: str) -> None:
        """What was taken for nothing."""
        if (bucket := self._buckets.get(who)) is not None:
            bucket.tokens = min(float(self.quota), bucket.tokens + 1)

    def left(self, who: str) -> tuple[int, int]:
        """Tokens there are, and the seconds until the bucket is full."""
        bucket = self._filled(who)
        return int(bucket.tokens), math.ceil((self.quota - bucket.tokens) * self.window_seconds / self.quota)

    def _filled(self, who: str) -> _Bucket:
        moment = time.monotonic()
        bucket = self._buckets.pop(who, None) or _Bucket(float(self.quota), moment)
        came = (moment - bucket.at) * self.quota / self.window_seconds
        bucket.tokens, bucket.at = min(float(self.quota), bucket.tokens + came), moment
        self._buckets[who] = bucket  # the last one used is the last one forgotten
        if len(self._buckets) > MOST_REMEMBERED:
            self._buckets.popitem(last=False)
        return bucket


class Open:
    """How many of a kind each has open now; a bound of 0 limits nobody."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._counts = Counter[str]()

    def enter(self, who: str) -> bool:
        """Whether there was room for one more; whoever enters leaves."""
        if self.most and self._counts[who] >= self.most:
            return False
        self._counts[who] += 1
        return True

    def leave(self, who: str) -> None:
        self._counts[who] -= 1
        if not self._counts[who]:
            del self._counts[who]

    def left(self, who: str) -> int:
        return self.most - self._counts[who]
