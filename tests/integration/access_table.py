"""The access matrix's table: of each route the scope it asks for, an object behind its ids, and what it notes.

A new route needs a row here. Its key is "VERB /path"; HEAD goes with GET.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.integration import access_objects as made
from tests.integration.access_objects import CHECK, Ids, World
from tests.integration.conftest import SPEC

PUBLIC, ANY_KEY = "public", "any key"

HOW_TO_ADD = """
Add a row to TABLE in tests/integration/access_table.py, such as
    "POST /v1/things/{thing_id}/turn": Row("jobs:write", made.a_thing, audit="things.turn"),
- the scope is one of api/book/scopes.py, asked by the route through api/deps.py (JobsReader, JobsWriter, DataReader,
  Administrator, Operator); ANY_KEY where every valid key will do, PUBLIC where none is needed;
- the object is a function of tests/integration/access_objects.py that makes a real one in the first project and returns
  the path parameters; leave it out for a route without ids;
- `audit` is the action that the route writes with `audit.record(session, caller, …)` in the transaction of the change;
  leave it out only where nothing is changed;
- `each_its_own` where a project makes an object of its own under the same id, as by a PUT;
- `body` (or a function that makes one) and `answers` where a key that may does not get 200, 201, 202 or 204.
"""


@dataclass(frozen=True)
class Row:
    scope: str
    object: Callable[[World], Ids] | None = None
    audit: str | None = None
    body: Any = None
    query: str = ""
    answers: tuple[int, ...] = (200, 201, 202, 204)
    each_its_own: bool = False


def _new_key(world: World) -> dict[str, Any]:
    return {"name": f"new-{next(world.numbers)}", "scopes": ["jobs:read"]}


def _new_project(world: World) -> dict[str, Any]:
    return {"name": f"project-{next(world.numbers)}"}


_JOB, _SEARCH, _CHECK = "/v1/jobs/{job_id}", "/v1/jobs/{job_id}/trials", "/v1/dataset_checks/{check_id}"
_DATASET = "/v1/datasets/{dataset_id}"
_SECRET = "/v1/secrets/{name}"
_CHECKPOINT, _ARTIFACT = f"{_JOB}/checkpoints/{{checkpoint_id}}", f"{_JOB}/artifacts/{{artifact_id}}"

TABLE: dict[str, Row] = {
    "GET /healthz": Row(PUBLIC),
    "GET /readyz": Row(PUBLIC),
    "GET /openapi.json": Row(PUBLIC),
    "GET /docs": Row(PUBLIC),
    "POST /v1/jobs": Row("jobs:write", audit="jobs.create", body=SPEC),
    "GET /v1/jobs": Row("jobs:read"),
    f"GET {_JOB}": Row("jobs:read", made.a_job, query="?wait=1"),
    f"POST {_JOB}/cancel": Row("jobs:write", made.a_queued_job, audit="jobs.cancel"),
    f"POST {_JOB}/pause": Row("jobs:write", made.a_queued_job, audit="jobs.pause"),
    f"POST {_JOB}/resume": Row("jobs:write", made.a_paused_job, audit="jobs.resume"),
    f"POST {_JOB}/profile": Row("jobs:write", made.a_running_job, audit="jobs.profile"),
    f"GET {_JOB}/efficiency": Row("jobs:read", made.a_job),
    f"GET {_JOB}/events": Row("jobs:read", made.a_job),
    f"GET {_JOB}/stream": Row("jobs:read", made.a_job),
    "POST /v1/stream_tokens": Row("jobs:read", body={}),
    f"GET {_JOB}/metrics": Row("jobs:read", made.a_job),
    f"GET {_JOB}/checkpoints": Row("jobs:read", made.a_checkpoint),
    f"GET {_CHECKPOINT}": Row("jobs:read", made.a_checkpoint),
    f"GET {_CHECKPOINT}/download": Row("data:read", made.a_checkpoint),
    f"POST {_CHECKPOINT}/pin": Row("jobs:write", made.a_checkpoint, audit="checkpoints.pin"),
    f"DELETE {_CHECKPOINT}/pin": Row("jobs:write", made.a_pinned_checkpoint, audit="checkpoints.unpin"),
    f"GET {_JOB}/artifacts": Row("jobs:read", made.an_artifact),
    f"GET {_ARTIFACT}": Row("jobs:read", made.an_artifact),
    f"GET {_ARTIFACT}/download": Row("data:read", made.an_artifact),
    f"GET {_JOB}/data_report": Row("data:read", made.a_job),
    f"GET {_JOB}/data_report/removed": Row("data:read", made.a_job),
    f"GET {_JOB}/data_report/difficulty": Row("data:read", made.a_job),
    f"GET {_SEARCH}": Row("jobs:read", made.a_search),
    f"GET {_SEARCH}/best": Row("jobs:read", made.a_search),
    f"GET {_SEARCH}/importance": Row("jobs:read", made.a_search),
    f"GET {_SEARCH}/pareto": Row("jobs:read", made.a_search),
    f"GET {_SEARCH}/parallel_coordinates": Row("jobs:read", made.a_search),
    f"GET {_SEARCH}/history": Row("jobs:read", made.a_search),
    f"GET {_SEARCH}/journal": Row("jobs:read", made.a_search),
    f"GET {_SEARCH}/{{number}}": Row("jobs:read", made.a_search),
    f"GET {_SEARCH}/{{number}}/efficiency": Row("jobs:read", made.a_search),
    "POST /v1/datasets": Row("jobs:write", audit="datasets.create", body={"name": "pets.zip"}),
    "GET /v1/datasets": Row("jobs:read"),
    f"GET {_DATASET}": Row("jobs:read", made.a_dataset),
    f"GET {_DATASET}/files": Row("data:read", made.a_dataset),
    f"DELETE {_DATASET}": Row("jobs:write", made.a_dataset, audit="datasets.delete"),
    f"PUT {_DATASET}/parts/{{number}}": Row("jobs:write", made.an_upload, body={"any": "bytes"}),
    f"GET {_DATASET}/parts": Row("jobs:read", made.an_upload),
    f"POST {_DATASET}/complete": Row("jobs:write", made.an_upload, audit="datasets.complete"),
    "POST /v1/plans": Row("jobs:read", body=SPEC),
    "POST /v1/dataset_checks": Row("jobs:write", audit="dataset_checks.create", body=CHECK),
    "GET /v1/dataset_checks": Row("jobs:read"),
    f"GET {_CHECK}": Row("jobs:read", made.a_check),
    f"GET {_CHECK}/events": Row("jobs:read", made.a_check),
    f"POST {_CHECK}/cancel": Row("jobs:write", made.a_check, audit="dataset_checks.cancel"),
    f"POST {_CHECK}/pause": Row("jobs:write", made.a_check, answers=(409,)),
    f"GET {_CHECK}/data_report": Row("data:read", made.a_check),
    f"GET {_CHECK}/data_report/removed": Row("data:read", made.a_check),
    "GET /v1/profiles": Row("jobs:read"),
    "GET /v1/workers": Row("jobs:read"),
    "POST /v1/api_keys": Row("admin", audit="api_keys.create", body=_new_key),
    "GET /v1/api_keys": Row("admin"),
    "GET /v1/api_keys/current": Row(ANY_KEY),
    "GET /v1/api_keys/{key_id}": Row("admin", made.a_key),
    "POST /v1/api_keys/{key_id}/rotate": Row("admin", made.a_key, audit="api_keys.rotate"),
    "POST /v1/api_keys/{key_id}/revoke": Row("admin", made.a_key, audit="api_keys.revoke"),
    "GET /v1/secrets": Row("jobs:read"),
    f"GET {_SECRET}": Row("jobs:read", made.a_secret),
    f"PUT {_SECRET}": Row("admin", made.a_secret, audit="secrets.put", body=made.SECRET, each_its_own=True),
    f"DELETE {_SECRET}": Row("admin", made.a_secret, audit="secrets.delete"),
    "GET /v1/audit": Row("admin"),
    "POST /v1/projects": Row("operator", audit="projects.create", body=_new_project),
    "GET /v1/projects": Row("operator"),
}
