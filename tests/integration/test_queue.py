"""One look at the queue: what could run now goes, whatever stands before it; projects share; reasons are decisions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import httpx2
import pytest
from sqlalchemy import event, select, text

from api.book import lanes
from api.book.database import Sessions
from api.book.models import Job, Project
from api.control.dispatcher import Dispatcher
from api.profiles import Profiles
from api.settings import Settings
from tests.integration.conftest import SPEC, Control
from tests.integration.search_book import SEARCH, Book
from training_core.contract import reports
from training_core.contract.errors import Reason
from training_core.contract.spec import JobSpec

CHECK = {"task": "image-classification", "dataset": SPEC["dataset"]}
GPU = {"compute": {"profile": "gpu"}}
CLAIMED = reports.Claimed(worker="host-a", incarnation="one")
MANY = """
INSERT INTO jobs (id, project_id, work, spec, spec_version, priority, labels, client_metadata, status, reason, version,
                  last_event_seq, queued_at)
  SELECT 'job_' || lpad(n::text, 26, '0'), project_id, work,
         jsonb_set(spec, '{compute,profile}', to_jsonb(CAST(:profile AS text))),
         spec_version, CAST(:priority AS int), '{}', '{}', 'queued', 'submitted', 1, 0, now()
  FROM generate_series(1, CAST(:count AS int)) AS n, jobs WHERE id = :like;
INSERT INTO trials (job_id, number, status, reason, attempt, losses)
  SELECT id, 0, 'queued', 'submitted', 0, 0 FROM jobs WHERE id LIKE 'job_0000%'
"""


@pytest.fixture
def other(api_url: str, keys: Callable[[str], str]) -> Iterator[httpx2.Client]:
    headers = {"Authorization": f"Bearer {keys('other')}"}
    with httpx2.Client(base_url=api_url, headers=headers, timeout=20) as client:
        yield client


def submit(client: httpx2.Client, **more: Any) -> str:
    answer = client.post("/v1/jobs", json={**SPEC, **more})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def many(sessions: Sessions, like: str, count: int, *, profile: str = "gpu", priority: int = 0) -> None:
    """Jobs like that one, all before it."""
    with sessions.begin() as session:
        for statement in MANY.split(";"):
            values = {"like": like, "count": count, "profile": profile, "priority": priority}
            session.execute(text(statement), {name: values[name] for name in values if f":{name}" in statement})


def booked(control: Control) -> list[str]:
    control.dispatcher.dispatch()
    return [attempt.job_id for attempt in control.attempts()]


def waits(client: httpx2.Client, job: str) -> dict[str, Any]:
    found: dict[str, Any] = client.get(f"/v1/jobs/{job}").json()
    return found


def test_a_cpu_job_behind_250_that_want_a_gpu_starts_on_an_idle_worker(
    client: httpx2.Client, control: Control, sessions: Sessions
) -> None:
    control.heartbeat()
    ours = submit(client, compute={"profile": "cpu"})
    many(sessions, ours, 250, priority=5)
    assert booked(control) == [ours]
    last = waits(client, "job_" + "250".zfill(26))
    assert (last["queue"]["position"], last["queue"]["code"]) == (250, "not_served")
    assert last["queue"]["reason"].startswith("No online worker offers profile gpu")


def test_a_thousand_checks_and_a_stranger_before_a_job_hide_nothing(
    client: httpx2.Client, other: httpx2.Client, control: Control, sessions: Sessions
) -> None:
    check = other.post("/v1/dataset_checks", json=CHECK).json()["id"]
    many(sessions, check, 1000, profile="auto")
    ours = client.post("/v1/dataset_checks", json=CHECK).json()["id"]
    job = submit(client)
    control.heartbeat()
    assert set(booked(control)) == {job, check, ours}  # one check of each project


def test_two_projects_share_the_slots_whoever_came_first(
    client: httpx2.Client, other: httpx2.Client, control: Control
) -> None:
    first = [submit(client) for _ in range(4)]
    second = [submit(other) for _ in range(2)]
    urgent = submit(client, priority=1)
    control.heartbeat(slots=4)
    assert set(booked(control)) == {urgent, second[0], first[0], second[1]}


def test_a_project_that_is_alone_takes_everything(client: httpx2.Client, control: Control) -> None:
    jobs = [submit(client) for _ in range(4)]
    control.heartbeat(slots=3)
    assert set(booked(control)) == set(jobs[:3])


def test_a_search_among_those_that_nobody_can_serve(
    client: httpx2.Client, other: httpx2.Client, control: Control, sessions: Sessions
) -> None:
    control.heartbeat(slots=2)
    gpu = submit(client, **GPU)
    many(sessions, gpu, 220)
    book = Book(client, control)
    for rate in (0.01, 0.02, 0.03):
        book.add(rate)
    theirs = submit(other)
    assert set(booked(control)) == {book.id, theirs}


def test_a_search_that_nobody_can_serve_hides_no_other(client: httpx2.Client, control: Control) -> None:
    for _ in range(3):
        book = Book(client, control, **GPU)
        for number in range(70):
            book.add(0.001 + number * 1e-4)
    control.heartbeat()
    ours = Book(client, control)
    ours.add(0.01)
    assert booked(control) == [ours.id]


def test_a_new_leader_decides_the_same_from_the_same_book(
    client: httpx2.Client, control: Control, sessions: Sessions, settings: Settings
) -> None:
    control.heartbeat()
    gpu, first, second, third = submit(client, **GPU), submit(client), submit(client), submit(client)
    booked(control)
    control.report(control.attempts()[0], CLAIMED)
    before = {job: waits(client, job)["queue"] for job in (gpu, second, third)}
    kept = control.dispatcher
    control = replace(
        control,
        dispatcher=Dispatcher(sessions, kept._redis, kept._postman, Profiles.load(None), settings),
    )
    assert booked(control) == [first]
    after = {job: waits(client, job)["queue"] for job in before}
    assert {job: (one["code"], one["reason"]) for job, one in after.items()} == {
        job: (one["code"], one["reason"]) for job, one in before.items()
    }
    assert all(after[job]["looked_at"] > before[job]["looked_at"] for job in before)


def test_what_a_lane_waits_for_is_written_when_it_changes(
    client: httpx2.Client, control: Control, sessions: Sessions
) -> None:
    control.heartbeat()
    submit(client, **GPU)
    booked(control)
    with sessions() as session:
        [(lane, first)] = lanes.decisions(session).items()
    booked(control)
    with sessions() as session:
        assert lanes.decisions(session)[lane].decided_at == first.decided_at
    client.post(f"/v1/jobs/{client.get('/v1/jobs').json()['data'][0]['id']}/cancel")
    booked(control)
    with sessions() as session:
        assert lanes.decisions(session) == {}


def test_a_job_that_nobody_here_can_do_says_so_at_once(client: httpx2.Client, control: Control) -> None:
    control.heartbeat()
    told = "compute.profile cannot be served now: No online worker offers profile gpu-2; one with 2 cuda slots would"
    spec = {**SPEC, "compute": {"profile": "gpu-2"}}
    assert told in client.post("/v1/jobs?validate_only=true", json=spec).json()["warnings"]
    job = client.post("/v1/jobs", json=spec).json()
    assert (job["warnings"], job["queue"]["code"], job["queue"]["looked_at"]) == ([told], "not_looked_at", None)
    booked(control)
    job = waits(client, job["id"])
    assert job["warnings"] == [told]
    assert job["status_detail"] == job["queue"]["reason"] == told.partition(": ")[2]
    assert job["queue"]["looked_at"] is not None
    served = waits(client, submit(client))
    assert served["warnings"] == []


def test_what_nobody_could_do_for_long_ends_where_the_operator_says_so(
    client: httpx2.Client, control: Control, sessions: Sessions, settings: Settings
) -> None:
    control.heartbeat()
    old, check_free = submit(client, **GPU), submit(client)
    search = Book(client, control, **GPU)
    search.add(0.01)
    booked(control)
    assert booked(control) == [check_free]  # without the setting everybody waits for ever
    kept = control.dispatcher
    changed = settings.model_copy(update={"unschedulable_after_seconds": 60.0})
    dispatcher = Dispatcher(sessions, kept._redis, kept._postman, Profiles.load(None), changed)
    earlier(sessions, seconds=61)
    young = submit(client, **GPU)
    dispatcher.dispatch()
    job = waits(client, old)
    assert (job["status"], job["reason"], job["error"]["code"]) == ("failed", "unschedulable", "unschedulable")
    assert "GET /v1/profiles" in job["error"]["hint"]
    assert client.get(f"/v1/jobs/{old}/events").json()["data"][-1]["data"] == {"reason": Reason.UNSCHEDULABLE}
    assert search.job().reason == "unschedulable"
    assert waits(client, young)["status"] == "queued"
    with sessions.begin() as session:  # nobody looked for an hour: who knows which workers there were
        session.execute(text("UPDATE queue_looks SET looked_at = now() - interval '1 hour'"))
    earlier(sessions, seconds=61)
    with sessions.begin() as session:
        lanes.give_full_time(session, 60)
    dispatcher.dispatch()
    assert waits(client, young)["status"] == "queued"


def earlier(sessions: Sessions, seconds: float) -> None:
    """As if all that waits had waited so much longer."""
    with sessions.begin() as session:
        for change in ("jobs SET queued_at = queued_at", "queue_lanes SET unserved_since = unserved_since"):
            session.execute(text(f"UPDATE {change} - make_interval(secs => :s)"), {"s": seconds})


def test_lanes_are_named_alike_by_the_database_and_for_jobs_not_booked(
    client: httpx2.Client, sessions: Sessions
) -> None:
    for more in ({}, GPU, {"compute": {"share": 0.25}}, {"compute": {"share": 1}}, {"search": SEARCH}):
        job_id = submit(client, **more)
        with sessions() as session:
            job = session.get_one(Job, job_id)
            seen = lanes.seen(session, job)
            assert seen is not None
            assert seen.lane == lanes.lane_of_new(job.project_id, JobSpec.model_validate({**SPEC, **more}))


def test_a_look_costs_what_there_are_lanes_however_many_wait(
    client: httpx2.Client, control: Control, sessions: Sessions
) -> None:
    control.heartbeat()
    gpu = submit(client, **GPU)
    statements: list[str] = []
    event.listen(sessions.kw["bind"], "before_cursor_execute", lambda *found: statements.append(found[2]))
    booked(control)
    few, statements[:] = len(statements), []
    many(sessions, gpu, 2000)
    statements.clear()
    booked(control)
    assert len(statements) <= few + 2
    with sessions.begin() as session:
        session.execute(text("ANALYZE jobs"))
        session.execute(text("SET LOCAL enable_seqscan = off"))
        plan = "\n".join(session.scalars(text(f"EXPLAIN {lanes._LANES.text}")))
        assert plan.count("ix_jobs_lanes") == 2
        project = session.scalars(select(Project.id)).first()
        found = lanes.heads(session, lanes.Lane(str(project), "train|plain|new|1.0|gpu"))
        assert [head.job_id for head in found] == ["job_" + str(n).zfill(26) for n in range(1, lanes.NEXT + 1)]
