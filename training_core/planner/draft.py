"""A compute plan in the making, with a reason for each of its choices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from training_core.contract.compute_plan import ComputePlan
from training_core.planner.case import Case
from training_core.planner.predict import predict

AS_REQUESTED = "as requested"


@dataclass(frozen=True)
class Draft:
    case: Case
    compute: ComputePlan

    def pick(self, field: str, value: object, reason: str, **others: Any) -> Draft:
        """With `compute.<field>` so, and why; `others` are fields that follow from it."""
        reasons = {**self.compute.reasons, f"compute.{field}": reason}
        return self._with(reasons=reasons, **{field: value}, **others)

    def warn(self, code: str, message: str) -> Draft:
        return self._with(warnings=[*self.compute.warnings, f"{code}: {message}"])

    def trying(self, **changes: Any) -> ComputePlan:
        """The compute plan with other values, to be compared."""
        return self.compute.model_copy(update=changes)

    def step_seconds(self, **changes: Any) -> float:
        """Of the compute plan with other values."""
        return predict(self.case, self.trying(**changes)).step_seconds

    def _with(self, **changes: Any) -> Draft:
        return Draft(self.case, self.compute.model_copy(update=changes))

    @property
    def wanted(self) -> Any:
        return self.case.wanted


def said(seconds: float) -> str:
    """A duration for a sentence."""
    for unit, size in (("h", 3600.0), ("min", 60.0), ("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e6:.3g} us"


def gigabytes(count: float) -> str:
    return f"{count / 2**30:.2g} GiB" if count >= 2**30 else f"{count / 2**20:.3g} MiB"
