"""What the API answers. Times are RFC 3339 in UTC, durations end in `_seconds`, enums are open: rely on `terminal`."""

from __future__ import annotations

from api.schemas.access import AuditAnswer, KeyAnswer, NewKeyAnswer, NewProjectAnswer, ProjectAnswer  # fmt: skip
from api.schemas.analyses import (  # fmt: skip
    ByDeviceSeconds,
    ByNumber,
    Dimension,
    HistoryAnswer,
    ImportanceAnswer,
    ImportanceTable,
    ObjectiveAnswer,
    ObjectiveHistory,
    ParallelCoordinatesAnswer,
    ParameterImportance,
    ParetoAnswer,
    ParetoPoint,
    ValueColumn,
)
from api.schemas.datasets import DatasetAnswer, PartAnswer
from api.schemas.files import ArtifactAnswer, CheckpointAnswer, EventAnswer, MetricsAnswer, SeriesAnswer
from api.schemas.fleet import ProfileAnswer, WorkerAnswer
from api.schemas.jobs import (  # fmt: skip
    Best,
    CheckPhases,
    Cost,
    DataReportSummary,
    DatasetCheckAnswer,
    EfficiencyAnswer,
    EfficiencySummary,
    JobAnswer,
    JobError,
    Phases,
    Progress,
    Queue,
    WorkAnswer,
)
from api.schemas.part import Answer, Instant, JsonObject, Page
from api.schemas.plans import CostRange, HoursRange, Missing, PlanAnswer, SearchPlan, Validation, WarmStart
from api.schemas.secrets import SecretAnswer, SecretBody
from api.schemas.streams import StreamClosed, StreamEnd, StreamTokenAnswer, StreamTokenSpec
from api.schemas.trials import AttemptAnswer, RungAnswer, SearchEfficiencyAnswer, TrialAnswer, TrialDetail

__all__ = [
    "Answer", "ArtifactAnswer", "AttemptAnswer", "AuditAnswer", "Best", "ByDeviceSeconds", "ByNumber",
    "CheckPhases", "CheckpointAnswer", "Cost", "CostRange", "DataReportSummary", "DatasetAnswer",
    "DatasetCheckAnswer", "Dimension", "EfficiencyAnswer", "EfficiencySummary", "EventAnswer", "HistoryAnswer",
    "HoursRange", "ImportanceAnswer", "ImportanceTable", "Instant", "JobAnswer", "JobError", "JsonObject",
    "KeyAnswer", "MetricsAnswer", "Missing", "NewKeyAnswer", "NewProjectAnswer", "ObjectiveAnswer",
    "ObjectiveHistory", "Page", "ParallelCoordinatesAnswer", "ParameterImportance", "ParetoAnswer", "ParetoPoint",
    "PartAnswer", "Phases", "PlanAnswer", "ProfileAnswer", "Progress", "ProjectAnswer", "Queue", "RungAnswer",
    "SearchEfficiencyAnswer", "SearchPlan", "SecretAnswer", "SecretBody", "SeriesAnswer", "StreamClosed",
    "StreamEnd", "StreamTokenAnswer", "StreamTokenSpec", "TrialAnswer", "TrialDetail", "Validation", "ValueColumn",
    "WarmStart", "WorkAnswer", "WorkerAnswer",
]  # fmt: skip
