"""The tables. CHECK constraints state what is always true; migrations build the same schema (a test compares)."""

from api.book.models.access import ApiKey, AuditEntry, IdempotencyKey, Project
from api.book.models.base import Base, JsonObject
from api.book.models.datasets import Dataset, DatasetPart
from api.book.models.fleet import Probe, Worker
from api.book.models.jobs import Attempt, Job, RungValue, Trial
from api.book.models.queue import QueueLane, QueueLook
from api.book.models.reports import Artifact, Checkpoint, Event, MetricChunk
from api.book.models.secrets import Secret

__all__ = [
    "ApiKey",
    "Artifact",
    "Attempt",
    "AuditEntry",
    "Base",
    "Checkpoint",
    "Dataset",
    "DatasetPart",
    "Event",
    "IdempotencyKey",
    "Job",
    "JsonObject",
    "MetricChunk",
    "Probe",
    "Project",
    "QueueLane",
    "QueueLook",
    "RungValue",
    "Secret",
    "Trial",
    "Worker",
]
