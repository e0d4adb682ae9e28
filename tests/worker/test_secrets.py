"""A secret reaches the process that reads the data, and no other; a name that is not the project's opens nothing."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.waiting import eventually
from tests.worker.conftest import Book
from training_core.contract.errors import Reason
from training_core.contract.messages import Ticket
from training_core.contract.run_dir import RunDir
from training_core.contract.sealing import new_key, sealer_of
from training_core.processes.handover import PIPE_BYTES, held_out
from worker.host import Host
from worker.launcher import Launcher
from worker.runner import run_attempt

KEY, CANARY = new_key(), {"key": "AKIACANARY", "secret": "canary-value"}
Make = Callable[..., Ticket]


@pytest.fixture
def make_host(host: Host, tmp_path: Path) -> Iterator[Callable[..., Host]]:
    """Hosts with a key and an operator's file, or with other settings."""
    made: list[Host] = []
    file = tmp_path / "credentials.json"
    lent = {"shared": {"projects": "*"}, "ours": {"projects": ["vision"]}, "none": {}, "store": {"projects": "*"}}
    file.write_text(json.dumps({name: entry | CANARY for name, entry in lent.items()}))

    def make(**changes: Any) -> Host:
        usual = {"secrets_key": type(host.settings.redis_url)(KEY), "credentials_file": file}
        made.append(Host(host.settings.model_copy(update=usual | changes), host.program))
        made[-1].journal.start()
        return made[-1]

    yield make
    for one in made:
        one.journal.stop(0)
        one.redis.close()


@pytest.fixture
def asking(ticket: Make) -> Make:
    """A ticket of the project `vision` whose data is read with the secret `name`, sealed as it should be or not."""
    numbers = iter(range(1, 1000))

    def make(host: Host, name: str, sealed: str | None = None, *, bound_to: str = "prj_1", key: str = KEY) -> Ticket:
        spec = {"task": "image-classification", "name": "complete"}
        spec["dataset"] = {"uri": "s3://pets/x", "credentials": name}
        secret, sealer = None, sealer_of(key)
        assert sealer is not None
        if sealed is not None:
            content = sealer.seal(bound_to, sealed, json.dumps(CANARY).encode())
            secret = {"project_id": "prj_1", "name": sealed, "sealed": base64.b64encode(content)}
        return ticket(host, "complete", next(numbers), spec=spec, secret=secret, project="vision")

    return make


def run_dir(host: Host, ticket: Ticket) -> RunDir:
    return RunDir(host.runs / ticket.job_id / "trial-0" / f"attempt-{ticket.attempt}")


def seen(host: Host, ticket: Ticket, stage: str) -> dict[str, Any]:
    told: dict[str, Any] = json.loads((run_dir(host, ticket).path / f"{stage}.json").read_text())
    return told


def carried_out(host: Host, ticket: Ticket) -> Ticket:
    descriptors = len(os.listdir("/proc/self/fd"))
    run_attempt(host, ticket)
    assert len(os.listdir("/proc/self/fd")) <= descriptors + 2  # the journal's own
    for file in run_dir(host, ticket).path.iterdir():
        assert file.name == "prepare.json" or b"canary" not in file.read_bytes().lower(), file
    return ticket


@pytest.mark.parametrize("warm", [True, False])
def test_the_preparation_is_handed_the_secret_and_the_training_is_not(
    make_host: Callable[..., Host], asking: Make, start_launcher: Callable[..., Launcher], warm: bool
) -> None:
    host = make_host()
    host.launcher = start_launcher() if warm else None
    ticket = carried_out(host, asking(host, "pets", "pets"))
    prepared, trained = (seen(host, ticket, stage) for stage in ("prepare", "train"))
    assert json.loads(prepared["handed"]) == CANARY
    assert trained["handed"] == ""
    assert prepared["interpreter"] is trained["interpreter"] is not warm
    assert "canary" not in str([prepared["environment"], trained]).lower()
    assert "secret" not in json.loads((run_dir(host, ticket).path / "ticket.json").read_text())


@pytest.mark.parametrize("name", ["shared", "ours"])
def test_an_entry_of_the_operator_that_is_lent_to_the_project(
    make_host: Callable[..., Host], asking: Make, name: str
) -> None:
    host = make_host()
    ticket = carried_out(host, asking(host, name))
    assert CANARY.items() <= json.loads(seen(host, ticket, "prepare")["handed"]).items()


def test_the_projects_own_goes_before_the_operators(make_host: Callable[..., Host], asking: Make) -> None:
    host = make_host(credentials_file=None)
    assert json.loads(seen(host, carried_out(host, asking(host, "shared", "shared")), "prepare")["handed"]) == CANARY


def refusal(host: Host, ticket: Ticket, book: Book) -> dict[str, Any]:
    carried_out(host, ticket)
    finished = eventually(lambda: book.finished(ticket.attempt_id))
    assert finished["reason"] == Reason.CREDENTIALS_UNKNOWN
    assert not (run_dir(host, ticket).path / "prepare.json").exists()
    return finished


def test_what_is_not_lent_answers_as_the_unknown(make_host: Callable[..., Host], asking: Make, book: Book) -> None:
    host = make_host()
    words = set()
    for name in ("unknown", "none", "store"):
        told = refusal(host, asking(host, name), book)
        words.add((told["message"].replace(name, "…"), told["hint"]))
    stranger = asking(host, "ours").model_copy(update={"project": "theirs"})
    told = refusal(host, stranger, book)
    words.add((told["message"].replace("ours", "…"), told["hint"]))
    assert len(words) == 1


def test_a_secret_that_does_not_open_says_what_is_missing(
    make_host: Callable[..., Host], asking: Make, book: Book
) -> None:
    host = make_host()
    for ticket in (asking(host, "pets", "pets", bound_to="prj_2"), asking(host, "pets", "pets", key=new_key())):
        told = refusal(host, ticket, book)
        assert "none of this worker's keys opens it" in told["message"]
        assert "TRAINYARD_SECRETS_KEY" in told["hint"]
    without = make_host(secrets_key=type(host.settings.redis_url)(""))
    assert "has no key" in refusal(without, asking(without, "pets", "pets"), book)["message"]
    assert "no credentials called" in refusal(host, asking(host, "pets", "cats"), book)["message"]


def test_what_a_pipe_does_not_hold_is_refused_and_not_waited_for() -> None:
    with held_out(b"x" * PIPE_BYTES) as descriptor:
        assert descriptor is not None
    with pytest.raises(ValueError, match="bytes"), held_out(b"x" * (PIPE_BYTES + 1)):
        pass
