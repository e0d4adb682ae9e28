"""Alerts come once, with evidence and a way out, and not for what is only noise."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.training.test_account_verdict import healthy, late, shares
from training_core.contract.reporter import Reports
from training_core.contract.reports import AlertRaised, decode
from training_core.contract.run_dir import EventsFile, complete_lines
from training_core.efficiency.alerts import Alerts, Latch
from training_core.efficiency.model import Account
from training_core.efficiency.verdict import judge

POINTS = 400


class Raised:
    """Alerts of one training, and what they wrote."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = EventsFile(path)
        self.reports = Reports(self._file)
        self.alerts = Alerts(self.reports, POINTS)

    def kinds(self) -> list[str]:
        return [one.alert for one in self.all()]

    def all(self) -> list[AlertRaised]:
        reports = [decode(line) for line, _ in complete_lines(self._path, 0)]
        return [one for one in reports if isinstance(one, AlertRaised)]

    def close(self) -> None:
        self._file.close()


@pytest.fixture
def raised(tmp_path: Path) -> Iterator[Raised]:
    one = Raised(tmp_path / "events.jsonl")
    yield one
    one.close()


def test_a_latch_waits_is_true_once_and_must_be_cleared() -> None:
    latch = Latch(raise_after=2, clear_after=3)
    looks = [True, False, True, True, True, False, False, True, False, False, False, True, True, True]
    assert [number for number, holds in enumerate(looks) if latch.look(holds)] == [3, 12]


def account(**changes: object) -> Account:
    numbers = healthy(**changes)
    return Account(**numbers.model_dump(), verdict=judge(numbers))


def test_a_verdict_that_stays_is_told_once_with_evidence_and_remedy(raised: Raised) -> None:
    bad, good = account(steps=shares(data_wait=0.5), queue=late(0.5, threads=3)), account()
    raised.alerts.account(bad)
    raised.alerts.account(good)
    assert raised.kinds() == [], "one look may be chance"
    for _ in range(4):
        raised.alerts.account(bad)
    [alert] = raised.all()
    assert alert.alert == "data_bound"
    for words in ("50 %", "dataset.packing", "taken: 2 more threads"):
        assert words in alert.message
    for _ in range(3):
        raised.alerts.account(good)
    for _ in range(2):
        raised.alerts.account(bad)
    assert raised.kinds() == ["data_bound", "data_bound"]


def test_a_good_verdict_alarms_nobody(raised: Raised) -> None:
    for _ in range(5):
        raised.alerts.account(account())
    assert raised.kinds() == []


def test_a_loss_that_runs_away(raised: Raised) -> None:
    for step in range(30):
        raised.alerts.training_loss(step, 2.0 - 0.05 * step)
    for step in range(30, 80):
        raised.alerts.training_loss(step, 3.0)
    [alert] = raised.all()
    assert (alert.alert, alert.data["step"]) == ("diverged", alert.data["step"])
    assert "learning_rate" in alert.message
    assert alert.data["loss"] > 2 * alert.data["best"]


def test_a_spike_and_a_loss_near_zero_are_no_divergence(raised: Raised) -> None:
    for step in range(60):
        raised.alerts.training_loss(step, 2.0 - 0.03 * step)
    raised.alerts.training_loss(60, 5.0)
    for step in range(61, 100):
        raised.alerts.training_loss(step, 0.01 if step % 2 else 0.03)
    assert raised.kinds() == []


def test_a_loss_that_is_no_number_is_somebody_elses_alert(raised: Raised) -> None:
    for step in range(60):
        raised.alerts.training_loss(step, math.nan)
        raised.alerts.validation_loss(step, math.inf)
    assert raised.kinds() == []


def test_a_loss_that_makes_no_progress(raised: Raised) -> None:
    window = POINTS // 4
    for step in range(window - 1):
        raised.alerts.training_loss(step, 2.3)
    assert raised.kinds() == [], "too early to say"
    for step in range(window - 1, 3 * window):
        raised.alerts.training_loss(step, 2.3)
    assert raised.kinds() == ["plateau"]


def test_a_flat_end_of_a_schedule_and_a_loss_that_is_all_but_zero_are_no_plateau(raised: Raised) -> None:
    for step in range(POINTS):
        falling = 2.3 * 0.985**step
        raised.alerts.training_loss(step, falling if step < 0.7 * POINTS else 2.3 * 0.985 ** (0.7 * POINTS))
    assert raised.kinds() == []


def test_the_end_of_a_schedule_is_flat_in_the_last_piece_of_a_training_too(raised: Raised) -> None:
    points = POINTS // 2
    raised.alerts = Alerts(raised.reports, points, done=points // 2)
    for step in range(points // 2, points):
        raised.alerts.training_loss(step, 2.3 if step >= 0.6 * points else 3.0)
    assert raised.kinds() == []


def test_a_validation_loss_that_rises_far_above_its_best(raised: Raised) -> None:
    for step, loss in enumerate([1.0, 0.5, 0.9, 1.2]):
        raised.alerts.validation_loss(step, loss)
    assert raised.kinds() == [], "one of them"
    raised.alerts.validation_loss(5, 1.3)
    [alert] = raised.all()
    assert alert.alert == "diverged"
    assert "augmentation" in alert.message


def test_a_validation_loss_that_was_tiny_may_double(raised: Raised) -> None:
    for step, loss in enumerate([1.0, 0.001, 0.003, 0.004, 0.005, 0.006]):
        raised.alerts.validation_loss(step, loss)
    assert raised.kinds() == []


def test_a_stall_is_told_again_only_when_it_gets_much_worse(raised: Raised) -> None:
    for seconds in (40.0, 50.0, 90.0):
        raised.alerts.stalled(7, seconds, 0.1)
    assert [alert.data["seconds"] for alert in raised.all()] == [40.0, 90.0]
    assert "log" in raised.all()[0].message
