"""Sends many requests on several lines at once, and keeps what is wrong with their answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from tests.fuzz.judging import Judge
from tests.fuzz.sending import Answer, Line, Sent

KEPT = 50


@dataclass
class Found:
    cases: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    faults: list[tuple[str, Sent]] = field(default_factory=list)
    slowest_seconds: float = 0.0

    def note(self, sent: Sent, answer: Answer, fault: str | None) -> None:
        self.cases += 1
        self.statuses[answer.status] += 1
        self.slowest_seconds = max(self.slowest_seconds, answer.seconds)
        if fault is not None and len(self.faults) < KEPT:
            self.faults.append((fault, sent))

    def add(self, other: Found) -> None:
        self.cases += other.cases
        self.statuses += other.statuses
        self.faults += other.faults
        self.slowest_seconds = max(self.slowest_seconds, other.slowest_seconds)

    def __str__(self) -> str:
        statuses = ", ".join(f"{status}: {count:,}" for status, count in sorted(self.statuses.items()))
        lines = [
            f"{self.cases:,} cases, {len(self.faults)} faults, the slowest {self.slowest_seconds:.2f} s ({statuses})"
        ]
        lines += [f"\n{fault}\n  {sent.raw(b'host')[:1500]!r}" for fault, sent in self.faults]
        return "\n".join(lines)


def hunt(url: str, judge: Judge, sources: list[Callable[[], Sent]], cases: int) -> Found:
    """The same number of cases from each source, each on a line of its own."""
    address = urlsplit(url)

    def one(source: Callable[[], Sent]) -> Found:
        found, line = Found(), Line(str(address.hostname), int(address.port or 80))
        for sent in _taken(source, cases // len(sources)):
            answer = line.ask(sent)
            found.note(sent, answer, judge.fault(sent, answer))
        line.close()
        return found

    total = Found()
    with ThreadPoolExecutor(len(sources)) as pool:
        for found in pool.map(one, sources):
            total.add(found)
    return total


def _taken(source: Callable[[], Sent], count: int) -> Iterator[Sent]:
    for _ in range(count):
        yield source()
