"""What a process does that was handed credentials: it keeps them to itself, whatever goes wrong."""

from __future__ import annotations

import sys
from typing import TextIO

from pydantic import TypeAdapter

from training_core.contract.credentials import Credentials, OperatorEntry
from training_core.contract.outcome import Outcome
from training_core.processes.handover import keep_private, taken
from training_core.processes.process import yield_to_others

NICENESS = 5


class Hiding:
    """A stream that shows no value of the credentials, also where a library quotes one in its own words."""

    def __init__(self, stream: TextIO, credentials: Credentials) -> None:
        self._stream, self._credentials = stream, credentials

    def write(self, text: str) -> int:
        return self._stream.write(self._credentials.hide_in(text))

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


def handed_over() -> Credentials | None:
    """Those that the worker hands to this process; from then on neither its memory nor its words show them."""
    secret = taken()
    if secret is None:
        return None
    yield_to_others(NICENESS)  # which a process cannot any more once it is private
    keep_private()
    handed = TypeAdapter[Credentials | OperatorEntry](Credentials | OperatorEntry)
    credentials = handed.validate_json(secret)
    sys.stdout, sys.stderr = Hiding(sys.stdout, credentials), Hiding(sys.stderr, credentials)
    return credentials


def hiding(outcome: Outcome, credentials: Credentials | None) -> Outcome:
    if credentials is None:
        return outcome
    texts = {name: getattr(outcome, name) for name in ("message", "hint")}
    return outcome.model_copy(update={name: text and credentials.hide_in(text) for name, text in texts.items()})
