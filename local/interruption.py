"""Ctrl-C, SIGTERM and a closed terminal become one KeyboardInterrupt, never two: cleaning up is not interrupted."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType


class Interruption:
    """The first signal raises in the main thread. After that, and after `close`, each signal calls `hurry`."""

    def __init__(self) -> None:
        self._closing = False
        self._hurry: Callable[[], None] = lambda: None
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._take)
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # ignored under nohup
            signal.signal(signal.SIGHUP, self._take)

    def close(self, hurry: Callable[[], None]) -> None:
        self._hurry = hurry
        self._closing = True

    def _take(self, _number: int, _frame: FrameType | None) -> None:
        if self._closing:
            self._hurry()
            return
        self._closing = True
        raise KeyboardInterrupt
