"""Query parameters and headers that several routes share."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal

from fastapi import Depends, Header, Query, Request

from api.bodies.door import Json
from api.bodies.spaces import space_faults
from api.book.queries import JobFilter
from api.book.status import Status
from api.errors import Problem, invalid_request
from api.long_polling import Wait
from api.settings import Settings
from training_core.contract.spec import JobSpec

Key = Annotated[
    str | None,
    Header(alias="Idempotency-Key", min_length=1, max_length=255, description="retries with one key make one job"),
]
MOST_IDS = 100
JOB_STATUSES = [str(status) for status in Status if status != Status.PRUNED]  # which a trial alone can be
_ID = re.compile(r"(job|chk|key|prj|aud)_[0-9A-HJKMNP-TV-Z]{26}")

Limit = Annotated[int, Query(ge=1, description="at most 100")]
After = Annotated[str | None, Query(max_length=64, description="`next_cursor` of the page before")]
Place = Annotated[str | None, Query(max_length=4000, description="`next_cursor` of the page before")]


def _filter(
    status: Annotated[list[str] | None, Query(description="one or more, repeated or with commas")] = None,
    label: Annotated[list[str] | None, Query(description="key:value, repeatable")] = None,
    ids: Annotated[str | None, Query(max_length=4000, description="ids with commas, at most 100")] = None,
    name: Annotated[str | None, Query(max_length=128, description="part of the name")] = None,
    external_id: Annotated[str | None, Query(max_length=128)] = None,
    created_after: datetime | None = None,
) -> JobFilter:
    return JobFilter(
        statuses=some_of("status", status, JOB_STATUSES),
        labels=dict(_label(item) for item in label or ()),
        ids=_ids(ids),
        name=name,
        external_id=external_id,
        created_after=created_after,
    )


def words(given: Sequence[str] | None) -> list[str]:
    """Of a parameter that is repeated, holds commas, or both."""
    return [part for item in given or () for part in item.split(",")]


def some_of(parameter: str, given: Sequence[str] | None, allowed: Sequence[str]) -> list[str]:
    """The words of a parameter; raises a 422 with the nearest for one that is not allowed."""
    return [one_of(parameter, word, allowed) for word in words(given)]


def _ids(given: str | None) -> Sequence[str]:
    found = given.split(",") if given else ()
    if len(found) > MOST_IDS:
        raise _value_error("ids", f"ids with commas, at most {MOST_IDS}")
    return found


def after_id(given: str | None) -> str | None:
    """Of a list that is ordered by its ids; raises a 422 for what is no id."""
    if given is not None and not _ID.fullmatch(given):
        raise unreadable_cursor()
    return given


def one_of(parameter: str, given: str, allowed: Sequence[str]) -> str:
    """Raises a 422 that lists them, with the nearest one, for anything else."""
    if given not in allowed:
        expected = ", ".join(f"'{name}'" for name in allowed)
        fault = {"loc": ("query", parameter), "type": "literal_error", "input": given, "ctx": {"expected": expected}}
        raise invalid_request([{**fault, "msg": f"It must be one of {expected}"}])
    return given


def bounds(parameter: str, given: Sequence[str] | None, allowed: Sequence[str]) -> dict[str, float]:
    """Of `name:number`; raises a 422 for a name that is not allowed or a number that is none."""
    found = {}
    for item in given or ():
        name, _, text = item.rpartition(":")
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise _value_error(parameter, "a bound is name:number")
        found[one_of(parameter, name, allowed)] = number
    return found


def numbers(parameter: str, given: str | None, most: int) -> list[int] | None:
    """With commas; raises a 422 for anything else, and for more than `most`."""
    if given is None:
        return None
    parts = given.split(",")
    if len(parts) > most or not all(part.isascii() and part.isdigit() and len(part) < 10 for part in parts):
        raise _value_error(parameter, f"numbers with commas, at most {most}")
    return [int(part) for part in parts]


def unreadable_cursor() -> Problem:
    return _value_error("after", "this is no next_cursor of a page in this order")


def _value_error(parameter: str, message: str) -> Problem:
    return invalid_request([{"loc": ("query", parameter), "type": "value_error", "ctx": {"error": message}}])


def _label(item: str) -> tuple[str, str]:
    key, separator, value = item.partition(":")
    if not separator:
        raise _value_error("label", "a label filter is key:value")
    return key, value


def _wait(
    request: Request,
    wait: Annotated[float, Query(ge=0, le=3600, description="seconds to hold the answer, at most 60")] = 0,
    until: Annotated[Literal["change", "terminal"], Query(description="what the wait is for")] = "change",
    if_none_match: Annotated[str | None, Header(max_length=4000, description="ETags of answers at hand")] = None,
) -> Wait:
    settings: Settings = request.app.state.settings
    return Wait(min(wait, settings.wait_limit_seconds), until, if_none_match)


Narrow = Annotated[JobFilter, Depends(_filter)]
Waiting = Annotated[Wait, Depends(_wait)]
# A route with a body takes it through this door alone, behind the caller's key in its list of parameters.
SpecBody = Annotated[JobSpec, Depends(Json(JobSpec, space_faults))]
