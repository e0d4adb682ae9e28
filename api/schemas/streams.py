"""Streams: the tokens that open them, and the messages that end them."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from api.schemas.part import Answer, Instant
from training_core.contract.spec import Part
from training_core.contract.spec.part import JobId


class StreamTokenSpec(Part):
    """Without `job_id` the token opens the streams of every job of the project."""

    model_config = ConfigDict(json_schema_extra={"examples": [{}]})

    job_id: JobId | None = None


class StreamTokenAnswer(Answer):
    object: Literal["stream_token"] = "stream_token"
    token: str = Field(description="for `?token=` of a stream's address")
    job_id: str | None
    expires_at: Instant


class StreamEnd(Answer):
    """The data of `done`, the last message of a stream: the job has ended and everything was said."""

    job_id: str
    status: str
    reason: str


class StreamClosed(Answer):
    """The data of `closed`, the last message of a stream whose API key has ended."""

    code: str
    message: str | None
