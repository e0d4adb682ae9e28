"""What all answers have in common."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, PlainSerializer

JsonObject = dict[str, Any]
Item = TypeVar("Item")

Instant = Annotated[
    datetime, PlainSerializer(lambda moment: moment.isoformat().replace("+00:00", "Z"), return_type=str)
]


class Answer(BaseModel):
    """NaN and infinities are the strings "NaN", "Infinity", "-Infinity": JSON has no such numbers."""

    model_config = ConfigDict(ser_json_inf_nan="strings", protected_namespaces=())


class Page(Answer, Generic[Item]):
    """One page, newest first unless said otherwise; pass `next_cursor` as `after` for the next."""

    object: Literal["list"] = "list"
    data: list[Item]
    has_more: bool
    next_cursor: str | None = None
