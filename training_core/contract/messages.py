"""What the control plane and the workers say to each other through Redis: names of keys, the ticket, the heartbeat.

A ticket is one Celery message: harmless when repeated, late or lost. Nothing here is the only record of anything.
"""

from __future__ import annotations

from enum import StrEnum

from pydantic import Base64Bytes, BaseModel, ConfigDict, Field

from training_core.contract.errors import Reason
from training_core.contract.spec import JobSpec, Work

TASK_RUN_ATTEMPT = "trainyard.run_attempt"
REPORTS_STREAM = "trainyard:reports"  # fields: attempt, job, line
RECORDED_HASH = "trainyard:recorded"  # attempt id -> last sequence number in the book
WORKERS_HASH = "trainyard:workers"  # worker name -> Heartbeat
WISHES_HASH = "trainyard:wishes"  # attempt id -> Wish

HEARTBEAT_SECONDS = 1.0
NAME_LEASE_SECONDS = 5.0  # a worker that was not heard for so long may be followed by another one of its name


class Wish(StrEnum):
    """What the control plane wants of a running attempt."""

    STOP = "stop"  # the client cancelled: checkpoint, then end
    PAUSE = "pause"  # the client wants the devices back for a while: checkpoint, then end
    PROFILE = "profile"  # trace a few steps and go on
    ABANDON = "abandon"  # the book has given this attempt up: kill it, report nothing


class Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SealedSecret(Message):
    """A secret as the book has it (`contract.sealing`), in base64; it opens under its project's id and name alone.

    The repr is without it.
    """

    project_id: str
    name: str
    sealed: Base64Bytes = Field(repr=False)


class Ticket(Message):
    """Everything a host needs to run one attempt. `attempt` is the fencing token of the trial.

    `work` is `check` for a dataset check: the data is prepared and reported, and nothing is trained, so that it needs
    no device. `train_seconds` is how long the devices may still be held in all, by `compute.max_hours` and the budget.
    `share` is the part of its one device that the attempt takes. `spec` is that of the trial. `rung` and `until`, a
    fraction of the whole training, say where a trial of a search ends for now; `adopt` that it goes on from another
    trial's checkpoint with parameters of its own. `project` is the name of the job's project. `references` gives the
    place below the store of each id that the spec names, as the book knows it under that project. `secret` is what
    `dataset.credentials` names there, where the project stored it.
    """

    attempt_id: str
    job_id: str
    project: str = "default"
    trial: int = 0
    attempt: int = Field(ge=1)
    work: Work = "train"
    spec: JobSpec
    references: dict[str, str] = Field(default_factory=dict)
    secret: SealedSecret | None = None
    device: str = Field(pattern="^(cpu|cuda)$")
    devices: int = Field(ge=0)
    share: float = Field(default=1.0, gt=0, le=1)
    incarnation: str
    resume_from: str | None = None
    rung: int | None = Field(default=None, ge=0)
    until: float | None = Field(default=None, gt=0, le=1)
    adopt: bool = False
    train_seconds: float | None = Field(default=None, ge=0)
    ends_because: Reason = Reason.TIME_LIMIT


class Heartbeat(Message):
    """A worker's sign of life. `beat` counts up; the janitor watches it change and compares no clocks.

    What a newer worker says beyond this is passed over: it is alive all the same. `readable` are the folders that
    `file://` may read there, by the names of the projects that have their own, and by `*` for all others.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    worker: str
    incarnation: str
    beat: int
    host: str
    device: str
    device_name: str
    slots: int
    cores: int
    memory_bytes: int
    device_memory_bytes: int = 0
    cpu_features: list[str] = Field(default_factory=list)
    draining: bool
    attempts: list[str]
    version: str
    readable: dict[str, list[str]] = Field(default_factory=dict)


def name_key(worker: str) -> str:
    """Holds who lives under this name, with a lease."""
    return f"trainyard:name:{worker}"


def host_queue(worker: str) -> str:
    """The Celery queue that only this worker consumes."""
    return f"host.{worker}"
