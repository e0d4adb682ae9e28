"""What the control plane wishes of a run, and the limits that its ticket sets: who wins, and what is told."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from itertools import permutations
from pathlib import Path

import pytest

from tests.waiting import eventually
from tests.worker.conftest import Book
from tests.worker.test_runner import run_dir, running
from training_core.contract.errors import Reason
from training_core.contract.messages import WISHES_HASH, WORKERS_HASH, Heartbeat, Ticket, Wish
from training_core.contract.run_dir import RunDir
from training_core.contract.spec import JobSpec
from training_core.planner.facts import cpu_features
from worker.heartbeat import Heart
from worker.host import Host, Run
from worker.launcher import Launcher
from worker.outcome import Cause
from worker.runner import run_attempt
from worker.slots import parse_gpus

Make = Callable[..., Ticket]


def training(host: Host, one: Ticket) -> bool:
    return (run_dir(host, one) / "train.json").exists()


@pytest.fixture
def patient(host: Host) -> Iterator[Host]:
    """A host that gives a run time to end by itself, however busy the machine is."""
    patient = Host(host.settings.model_copy(update={"stop_grace_seconds": 60.0}), host.program)
    patient.journal.start()
    yield patient
    patient.journal.stop(0)
    patient.redis.close()


def spec(mode: str, **compute: object) -> JobSpec:
    dataset = {"uri": "file:///data/x"}
    return JobSpec.model_validate(
        {"name": mode, "task": "image-classification", "dataset": dataset, "compute": compute}
    )


def test_a_wish_to_pause_hands_the_devices_back(patient: Host, ticket: Make, book: Book) -> None:
    one = ticket(patient, "obey")
    with running(patient, one):
        eventually(lambda: training(patient, one))
        patient.redis.hset(WISHES_HASH, one.attempt_id, Wish.PAUSE.value)
        Heart(patient).listen()
    finished = eventually(lambda: book.finished(one.attempt_id))
    assert (finished["reason"], finished["phase"], finished["exit_code"]) == (Reason.PAUSED_BY_CLIENT, "running", 0)


def test_a_pause_that_is_not_heeded_is_enforced(host: Host, ticket: Make, book: Book) -> None:
    one = ticket(host, "deaf")
    with running(host, one):
        eventually(lambda: training(host, one))
        host.current()[0].stop(Cause.PAUSED)
    finished = eventually(lambda: book.finished(one.attempt_id))
    assert (finished["reason"], finished["exit_code"]) == (Reason.PAUSED_BY_CLIENT, -15)


@pytest.mark.parametrize(
    ("causes", "winner"),
    [
        (order, winner)
        for causes, winner in (
            ((Cause.PAUSED, Cause.CANCELLED), Cause.CANCELLED),
            ((Cause.PAUSED, Cause.CANCELLED, Cause.ABANDONED), Cause.ABANDONED),
            ((Cause.TIME_LIMIT, Cause.ABANDONED), Cause.ABANDONED),
        )
        for order in permutations(causes)
    ]
    + [((Cause.SHUTDOWN, Cause.PAUSED), Cause.SHUTDOWN), ((Cause.PAUSED, Cause.SHUTDOWN), Cause.PAUSED)],
)
def test_who_wins(host: Host, ticket: Make, tmp_path: Path, causes: Sequence[Cause], winner: Cause) -> None:
    run = Run(ticket(host, "obey"), RunDir(tmp_path))
    for cause in causes:
        run.stop(cause)
    assert run.cause is winner


def test_cancelled_while_it_pauses(host: Host, ticket: Make, book: Book) -> None:
    one = ticket(host, "deaf")
    with running(host, one):
        eventually(lambda: training(host, one))
        host.current()[0].stop(Cause.PAUSED)
        eventually((run_dir(host, one) / "stop").exists)
        host.current()[0].stop(Cause.CANCELLED)
    assert eventually(lambda: book.finished(one.attempt_id))["reason"] == Reason.CANCELLED_BY_CLIENT


def test_a_wish_to_profile_is_passed_on_once_and_again_when_it_is_new(host: Host, ticket: Make) -> None:
    one, heart = ticket(host, "obey"), Heart(host)
    wanted = run_dir(host, one) / "profile"
    with running(host, one):
        eventually(lambda: training(host, one))
        host.redis.hset(WISHES_HASH, one.attempt_id, Wish.PROFILE.value)
        heart.listen()
        wanted.unlink()  # as the training does when it has traced
        heart.listen()
        assert not wanted.exists()
        host.redis.hdel(WISHES_HASH, one.attempt_id)
        heart.listen()
        host.redis.hset(WISHES_HASH, one.attempt_id, Wish.PROFILE.value)
        heart.listen()
        assert wanted.exists()
        assert host.current()[0].cause is None
        host.current()[0].stop(Cause.CANCELLED)


def test_a_run_may_hold_its_devices_as_long_as_its_ticket_says(patient: Host, ticket: Make, book: Book) -> None:
    one = ticket(patient, "obey", train_seconds=0.4)
    run_attempt(patient, one)
    finished = eventually(lambda: book.finished(one.attempt_id))
    assert (finished["reason"], finished["exit_code"]) == (Reason.TIME_LIMIT, 0)
    assert "raise compute.max_hours" in str(finished["hint"])
    assert "model.weights" in str(finished["hint"])
    assert json.loads((run_dir(patient, one) / "spec.json").read_text())["train_seconds"] == 0.4


def test_a_spent_budget_is_told_as_such(host: Host, ticket: Make, book: Book) -> None:
    one = ticket(host, "stubborn")
    with running(host, one):
        eventually(lambda: b'"metric"' in (run_dir(host, one) / "events.jsonl").read_bytes())
        host.current()[0].stop(Cause.BUDGET)
    finished = eventually(lambda: book.finished(one.attempt_id))
    # It heeded neither the file nor SIGTERM.
    assert (finished["reason"], finished["exit_code"]) == (Reason.BUDGET_EXHAUSTED, -9)
    assert "budget.max_cost" in str(finished["hint"])
    assert "no checkpoint yet" in str(finished["hint"])


def test_the_preparation_has_a_limit_of_its_own(patient: Host, ticket: Make, book: Book) -> None:
    one = ticket(patient, "slow-data", spec=spec("slow-data", max_hours=1e-4), train_seconds=60)
    run_attempt(patient, one)
    finished = eventually(lambda: book.finished(one.attempt_id))
    assert (finished["reason"], finished["phase"], finished["exit_code"]) == (Reason.TIME_LIMIT, "preparing", 0)


def test_the_heartbeat_says_what_the_planner_needs(host: Host) -> None:
    Heart(host).beat()
    value = host.redis.hget(WORKERS_HASH, "host-a")
    assert value is not None
    beat = Heartbeat.model_validate_json(value)
    assert (beat.device, beat.device_memory_bytes, beat.cpu_features) == ("cpu", 0, cpu_features())


def test_what_nvidia_smi_says() -> None:
    table = "NVIDIA H100 80GB HBM3, 81559\nNVIDIA GB10, [N/A]\n"
    assert parse_gpus(table) == [("NVIDIA H100 80GB HBM3", 81559 * 2**20), ("NVIDIA GB10", 0)]


def test_ranks_by_torchrun_start_cold(start_launcher: Callable[..., Launcher], host: Host, ticket: Make) -> None:
    """`runtime.launch` starts torchrun itself; a launcher that has imported everything is no help to it."""
    host.launcher = start_launcher()
    for number, (start, expected) in enumerate((("warm", ["prepare", "train"]), ("torchrun", ["prepare"]))):
        one = ticket(host, "complete", number + 1, spec=spec("complete", start=start))
        run_attempt(host, one)
        seen = {stage: json.loads((run_dir(host, one) / f"{stage}.json").read_text()) for stage in ("prepare", "train")}
        assert [stage for stage in seen if not seen[stage]["interpreter"]] == expected
        assert seen["train"]["environment"]["OMP_NUM_THREADS"]
