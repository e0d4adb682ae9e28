"""The book of a search: trials come, reach rungs, go on and end, each once; the job ends when the search does."""

from __future__ import annotations

import math

import httpx2
import pytest

from api.book import studies
from api.book.locks import lock_job
from api.book.status import Status
from tests.integration.conftest import Control
from tests.integration.search_book import CLAIMED, RATE, SEARCH, Book, finished
from training_core.contract import reports
from training_core.contract.errors import Reason


@pytest.fixture
def book(client: httpx2.Client, control: Control) -> Book:
    control.heartbeat(slots=4)
    return Book(client, control)


def test_a_search_begins_without_a_trial_and_waits_for_the_tuner(book: Book) -> None:
    book.control.dispatcher.dispatch()
    assert (book.control.attempts(), book.job().status) == ([], "queued")
    answer = book.client.get(f"/v1/jobs/{book.id}")
    assert (answer.status_code, answer.json()["status"]) == (200, "queued")


def test_a_trial_goes_over_a_rung_to_its_end(book: Book) -> None:
    book.add(0.01)
    first = book.trains(0)
    assert (book.job().status, book.trial(0).status) == ("running", "running")
    book.reaches(first, 0.7)
    assert book.states(0) == [("paused", "rung_reached")]
    [row] = book.rungs(0)
    assert (row.rung, row.fraction, row.images, row.values) == (0, 0.25, 512, {"validation/accuracy": 0.7})
    assert (book.trial(0).reached, book.job().status) == (0.25, "running")
    book.promote(0, rung=None, until=None)
    second = book.trains(0, resumed=25)
    assert second.resume_from == f"jobs/{book.id}/trial-0/attempt-1/step-00000025"
    book.completes(second, 0.9)
    trial = book.trial(0)
    assert (trial.status, trial.values, trial.reached) == ("succeeded", {"validation/accuracy": 0.9}, 1.0)
    assert (trial.result or {})["images_seen"] == 900
    told = [kind for kind in book.events(0) if kind.startswith("trial.")]
    assert told == ["trial.started", "trial.paused", "trial.promoted", "trial.started", "trial.completed"]
    assert book.events() == ["job.created", "data.ready", "job.started"]
    book.end(Reason.COMPLETED)
    assert (book.job().status, book.events()[-1]) == ("succeeded", "job.succeeded")


def test_the_ticket_is_that_of_the_trial(client: httpx2.Client, control: Control) -> None:
    control.heartbeat(slots=4)
    book = Book(client, control, compute={"max_hours": 2})
    book.add(0.02, rung=1, until=0.125)
    book.note(share=0.5)
    book.booked(0)
    [ticket] = book.tickets()
    assert (ticket.spec.training.optimizer.learning_rate, ticket.spec.search) == (0.02, None)
    assert (ticket.rung, ticket.until, ticket.share, ticket.adopt) == (1, 0.125, 0.5, False)
    assert (ticket.train_seconds, ticket.ends_because) == (7200, Reason.TIME_LIMIT)


def test_trained_trials_are_booked_before_new_ones(client: httpx2.Client, control: Control) -> None:
    control.heartbeat(slots=1)
    book = Book(client, control)
    book.add(0.01)
    attempt = book.trains(0)
    for rate in (0.02, 0.03, 0.04, 0.05):
        book.add(rate)
    book.reaches(attempt, 0.7)
    book.promote(0)
    control.dispatcher.dispatch()
    assert [one.trial for one in control.attempts()] == [0, 0, 1, 2]  # one that fits and two that wait there


def test_only_a_trial_that_waits_at_a_rung_moves_on(book: Book) -> None:
    book.add(0.01)
    attempt = book.trains(0)
    with pytest.raises(studies.Moved, match="running"):
        book.promote(0)
    book.reaches(attempt, 0.7)
    book.prune(0, "at rung 0 its validation/accuracy 0.7 is worse than 3 others")
    with pytest.raises(studies.Moved, match="pruned"):
        book.prune(0)
    trial = book.trial(0)
    assert (trial.status, trial.why) == ("pruned", "at rung 0 its validation/accuracy 0.7 is worse than 3 others")
    assert trial.finished_at is not None
    assert (book.events(0)[-1], book.job().status) == ("trial.pruned", "running")


@pytest.mark.parametrize(
    ("metrics", "why"),
    [
        ({"validation/loss": 0.5}, "no validation/accuracy; it reported throughput/images_per_second, validation/loss"),
        ({"validation/accuracy": math.nan}, "The training reported nan as validation/accuracy"),
    ],
)
def test_a_trial_without_its_objective_fails_and_says_what_there_was(
    book: Book, metrics: dict[str, float], why: str
) -> None:
    book.add(0.01, rung=None, until=None)
    book.completes(book.trains(0), **metrics)
    trial = book.trial(0)
    assert (trial.status, (trial.error or {})["code"]) == ("failed", "objective_missing")
    assert why in (trial.why or "")
    assert (book.job().status, book.job().error) == ("running", None)


def test_what_a_trial_is_worth_may_be_its_speed_or_its_seconds(client: httpx2.Client, control: Control) -> None:
    control.heartbeat(slots=4)
    objectives = [{"metric": name} for name in ("throughput/images_per_second", "device_seconds")]
    book = Book(client, control, search={**SEARCH, "objective": objectives})
    book.note(share=0.5)
    book.add(0.01, rung=None, until=None)
    attempt = book.trains(0)
    book.long_ago(attempt)
    book.completes(attempt, 0.9)
    assert book.trial(0).values == {"throughput/images_per_second": 300.0, "device_seconds": 20.0}


def test_a_lost_trial_goes_on_from_its_checkpoint_and_losses_count_for_it_alone(book: Book) -> None:
    book.add(0.01)
    other = book.trains(0)
    book.add(0.02)
    for lost in range(4):
        attempt = book.trains(1)
        book.control.report(attempt, finished(Reason.PROCESS_DIED, message="it died"))
        assert book.trial(1).losses == min(lost + 1, 4)
    assert book.states(0, 1) == [("running", "training"), ("failed", "retries_exhausted")]
    assert "3 retries brought no new checkpoint" in (book.trial(1).why or "")
    assert book.events(1).count("trial.requeued") == 3
    book.control.report(other, book.saved(other, 10), finished(Reason.PROCESS_DIED))
    assert book.job().status == "queued"  # no trial is held any more
    again = book.trains(0, resumed=10)
    assert (again.resume_from, book.job().status) == (f"jobs/{book.id}/trial-0/attempt-1/step-00000010", "running")


def test_a_trial_that_only_waited_on_a_worker_when_that_was_lost_has_lost_nothing(book: Book) -> None:
    book.add(0.01)
    book.trains(0)
    book.add(0.02)
    for life in range(6):
        book.booked(1)
        book.control.heartbeat(slots=4, incarnation=f"life-{life}")
        book.control.dispatcher.dispatch()
    assert (book.trial(1).losses, book.trial(1).status) == (0, "preparing")
    assert (book.trial(0).losses, book.trial(0).status) == (1, "preparing")


def test_a_trial_that_fails_is_not_the_end_of_the_search(book: Book) -> None:
    book.add(0.01)
    failed = finished(Reason.NAN_LOSS, 3, message="the loss is NaN", hint="lower the learning rate")
    book.control.report(book.trains(0), failed)
    trial = book.trial(0)
    assert (trial.status, trial.why) == ("failed", "the loss is NaN")
    assert (trial.error or {})["hint"] == "lower the learning rate"
    assert (book.job().status, book.events(0)[-1]) == ("running", "trial.failed")


def test_parameters_that_make_no_spec_together_fail_their_trial_alone(client: httpx2.Client, control: Control) -> None:
    control.heartbeat()
    space = {"model.pretrained": {"type": "categorical", "choices": [True, False]}}
    book = Book(client, control, search={"space": space}, model={"name": "resnet18"})
    with control.sessions.begin() as session:
        job = lock_job(session, book.id)
        for parameters in ({"model.trainable": "head"}, {"model.pretrained": False}):
            studies.add_trial(session, job, parameters, "random", rung=None, until=None)
    assert book.booked(1).trial == 1
    assert book.states(0) == [("failed", "unsupported")]
    assert "trainable: head needs a trained trunk" in (book.trial(0).why or "")


def test_a_lost_worker_gives_each_of_its_trials_back(book: Book) -> None:
    book.add(0.01)
    first = book.trains(0)
    book.add(0.02)
    second = book.trains(1)
    book.reaches(first, 0.7)
    book.control.heartbeat(slots=4, incarnation="two")
    assert book.states(0, 1) == [("paused", "rung_reached"), ("queued", "worker_lost")]
    assert book.events(1)[-2:] == ["worker.lost", "trial.requeued"]
    book.reaches(second, 0.9)
    assert (book.states(1), book.rungs(1)) == ([("queued", "worker_lost")], [])


def test_the_facts_of_a_run_are_those_of_its_trial(book: Book) -> None:
    book.add(0.01)
    attempt = book.booked(0)
    plan = reports.PlanChosen(resolved={}, reasons={}, total_steps=100, total_epochs=10, world_size=1)
    progress = reports.Progress(step=1, epoch=1, fraction=0.1, images_per_second=1, eta_seconds=1)
    account = {
        "steps": {"compute": {"seconds": 2.0}, "data_wait": {"seconds": 1.0}},
        "phases": {"evaluate": {"seconds": 0.5}},
    }
    efficiency = reports.Efficiency(step=1, final=False, account=account)
    book.control.report(attempt, CLAIMED, plan, progress, efficiency)
    job, trial = book.job(), book.trial(0)
    assert (job.plan, job.progress, job.efficiency) == (None, None, None)
    assert ((trial.plan or {})["total_steps"], (trial.progress or {})["fraction"]) == (100, 0.1)
    [kept] = book.control.attempts()
    assert (kept.training_seconds, kept.evaluation_seconds) == (3.0, 0.5)
    assert book.events(0) == ["job.preparing", "plan.chosen"]


def test_a_member_of_a_population_goes_on_from_another_ones_checkpoint(book: Book) -> None:
    book.add(0.01)
    best = book.trains(0)
    book.add(0.02)
    worst = book.trains(1)
    book.reaches(best, 0.9)
    book.reaches(worst, 0.1)
    source = f"jobs/{book.id}/trial-0/attempt-1/step-00000025"
    book.promote(1, adopts=source, parameters={RATE: 0.012})
    attempt = book.booked(1)
    ticket = book.tickets()[-1]
    assert (attempt.resume_from, ticket.adopt, ticket.spec.training.optimizer.learning_rate) == (source, True, 0.012)
    book.control.report(attempt, CLAIMED, reports.Started(resumed_from_step=25), book.saved(attempt, 20))
    book.control.report(attempt, finished(Reason.PROCESS_DIED))
    again = book.booked(1)  # from its own checkpoint of the attempt after, though an older one had come further
    assert (again.resume_from, book.tickets()[-1].adopt) == (
        f"jobs/{book.id}/trial-1/attempt-2/step-00000020", False,
    )  # fmt: skip
    assert Status(book.trial(1).status) == Status.PREPARING


def test_a_search_that_nobody_has_room_for_is_in_the_queue_again(book: Book) -> None:
    book.add(0.01)
    book.reaches(book.trains(0), 0.7)
    assert book.job().status == "running"
    book.control.heartbeat(slots=4, draining=True)
    book.promote(0)
    book.control.dispatcher.dispatch()
    assert (book.job().status, book.job().reason) == ("queued", "no_slot")
    assert book.client.get(f"/v1/jobs/{book.id}").json()["queue"]["position"] == 1
    book.control.heartbeat(slots=4)
    assert (book.trains(0).number, book.job().status) == (2, "running")
