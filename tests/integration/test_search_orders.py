"""Whatever order things happen in, repeated, late or lost: each trial ends once, and the book contradicts nowhere."""

from __future__ import annotations

import random
from collections import Counter
from contextlib import suppress

import httpx2
import pytest
from sqlalchemy import select

from api.book import control_requests, studies, transitions
from api.book.lifecycle import InvalidTransition
from api.book.locks import StaleAttempt
from api.book.models import Attempt, Event, Trial
from api.book.status import HELD, TERMINAL
from api.control.reports import apply_lines
from tests.integration.conftest import Control
from tests.integration.search_book import CLAIMED, READY, STARTED, Book, finished
from training_core.contract import reports
from training_core.contract.errors import Reason

LOSSES_LIMIT = 2
STEPS = 90
LAST = {"trial.completed", "trial.pruned", "trial.failed", "trial.cancelled"}
ENDS = [
    Reason.PROCESS_DIED, Reason.WORKER_SHUTDOWN, Reason.NO_SLOT, Reason.NAN_LOSS, Reason.PAUSED_BY_CLIENT,
    Reason.BUDGET_EXHAUSTED, Reason.CANCELLED_BY_CLIENT,
]  # fmt: skip
RUNG = reports.RungReached(rung=0, fraction=0.25, step=25, epoch=1, images=512, values={"validation/accuracy": 0.5})
SUMMARY = reports.Summary(
    metrics={"validation/accuracy": 0.9}, best_step=100, best_checkpoint=None, seconds={}, images_seen=1,
    images_per_second=1.0,
)  # fmt: skip


class Chance:
    """Does to a search, step by step, anything that may happen to it."""

    def __init__(self, book: Book, seed: int) -> None:
        self.book, self.random = book, random.Random(seed)
        self.sent: dict[str, list[bytes]] = {}

    def step(self) -> None:
        deeds = [self.start, self.dispatch, self.report, self.report, self.report, self.repeat, self.lose, self.decide]
        with suppress(StaleAttempt, studies.Moved, InvalidTransition):
            self.random.choice([*deeds, self.dispatch, self.report, self.wish])()

    def start(self) -> None:
        rung, until = self.random.choice([(0, 0.25), (None, None)])
        if len(self.trials()) < 8:
            self.book.add(self.random.uniform(0.001, 0.01), rung=rung, until=until)

    def dispatch(self) -> None:
        self.book.control.dispatcher.dispatch()

    def report(self) -> None:
        """Of any attempt, whether or not it still counts."""
        attempts = self.book.control.attempts()
        if not attempts:
            return
        attempt = self.random.choice(attempts)
        saved = self.book.saved(attempt, self.random.randrange(100))
        said = self.random.choice(
            [[CLAIMED], [READY], [STARTED], [saved], [RUNG, finished(Reason.RUNG_REACHED, 1)],
             [SUMMARY, finished(Reason.COMPLETED, 1)], [finished(Reason.RUNG_REACHED)], [finished(Reason.COMPLETED)],
             [finished(self.random.choice(ENDS), 1)]]
        )  # fmt: skip
        lines = self.sent.setdefault(attempt.id, [])
        for line in said:
            lines.append(line.model_copy(update={"seq": len(lines) + 1, "at": 1.0}).model_dump_json().encode())
        self.apply(attempt.id, lines[-len(said) :])

    def repeat(self) -> None:
        """All that an attempt ever said, from its beginning, or with a gap."""
        if self.sent:
            attempt_id, lines = self.random.choice(sorted(self.sent.items()))
            self.apply(attempt_id, lines[self.random.randrange(len(lines)) :])

    def apply(self, attempt_id: str, lines: list[bytes]) -> None:
        with self.book.control.sessions.begin() as session:
            apply_lines(session, attempt_id, lines, LOSSES_LIMIT)

    def lose(self) -> None:
        attempts = self.book.control.attempts()
        if attempts:
            with self.book.control.sessions.begin() as session:
                attempt = session.get_one(Attempt, self.random.choice(attempts).id)
                transitions.lose(session, attempt, "the worker is gone", LOSSES_LIMIT)

    def decide(self) -> None:
        trials = self.trials()
        if trials:
            number = self.random.choice(trials).number
            self.random.choice([self.book.promote, self.book.prune])(number)

    def wish(self) -> None:
        with self.book.control.sessions.begin() as session:
            self.random.choice([control_requests.pause, control_requests.resume, control_requests.resume])(
                session, self.book.id
            )

    def trials(self) -> list[Trial]:
        with self.book.control.sessions() as session:
            return list(session.scalars(select(Trial).where(Trial.job_id == self.book.id)))


def check(book: Book, trials: list[Trial]) -> None:
    """What the tables cannot say of themselves."""
    open_attempts = Counter(one.trial for one in book.control.attempts() if one.finished_at is None)
    held = {trial.number for trial in trials if trial.status in HELD}
    assert open_attempts == dict.fromkeys(held, 1)
    with book.control.sessions() as session:
        events = session.scalars(select(Event).where(Event.job_id == book.id).order_by(Event.seq)).all()
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    ends = Counter(event.trial for event in events if event.type in LAST)
    assert ends == {trial.number: 1 for trial in trials if trial.status in TERMINAL}
    assert not held or book.job().status in HELD


@pytest.mark.parametrize(("seed", "ends"), [(0, "end"), (1, "cancel")])
def test_any_order_of_events_leaves_the_book_true(
    client: httpx2.Client, control: Control, seed: int, ends: str
) -> None:
    control.heartbeat(slots=4)
    book = Book(client, control)
    chance = Chance(book, seed)
    for number in range(STEPS):
        chance.step()
        if number % 4 == 0:
            check(book, chance.trials())
    if ends == "end":
        book.end(Reason.LIMIT_REACHED)
    else:
        client.post(f"/v1/jobs/{book.id}/cancel")
        for attempt in control.attempts():
            with suppress(StaleAttempt), control.sessions.begin() as session:
                transitions.lose(session, session.get_one(Attempt, attempt.id), "gone", LOSSES_LIMIT)
    trials = chance.trials()
    check(book, trials)
    assert all(trial.status in TERMINAL for trial in trials)
    assert book.job().status == ("succeeded" if ends == "end" else "cancelled")
