"""Secrets are taken out of whatever is told, whoever quoted them."""

from __future__ import annotations

import io
import logging

import pytest

from training_core.contract.errors import Failed, Reason
from training_core.contract.outcome import outcome_of
from training_core.contract.redaction import Redacted, redact

CANARY = "pa55word"
SECRETS = [
    f"s3://user:{CANARY}@host/x",
    f"redis://:{CANARY}@@broker:6379/0",
    f"https://b.example/x?X-Amz-Signature={CANARY}&x=1",
    f"https://b.example/x?x=1&X-Amz-Credential={CANARY}%2F2026",
    f"https://b.example/x?X-Amz-Security-Token={CANARY}",
    f"https://a.blob.example/x?sv=2&sig={CANARY}%3D&se=1",
    f"https://b.example/x?token={CANARY}",
    f"https%3A%2F%2Fb.example%3Ftoken%3D{CANARY}",
    f"Authorization: Bearer {CANARY}",
    f"{{'authorization': 'Bearer {CANARY}'}}",
    f'secret = "{CANARY}"',
    f"AWS_SECRET_ACCESS_KEY={CANARY}",
    f"api_key: {CANARY}",
    f"AccountKey={CANARY}==",
    f"eyJhbGciOi.eyJz{CANARY}.{CANARY}",
    f"ty_01ARZ3NDEKTSV4RRFFQ69G5FAV_{CANARY}",
    f"AKIA{CANARY}ABCDEFGH".upper(),
    f"hf_{CANARY}abcdefghijklmnopqrst",
    f"-----BEGIN RSA PRIVATE KEY-----\n{CANARY}\n-----END RSA PRIVATE KEY-----",
]


@pytest.mark.parametrize("text", SECRETS)
def test_secrets_go_and_the_rest_stays(text: str) -> None:
    said = redact(f"before {text} after")
    assert CANARY not in said.lower()
    assert said.startswith("before ")
    assert redact(said) == said


def test_what_is_no_secret_stays() -> None:
    for text in (
        "s3://pets/p/1.png could not be read (status 403)",
        "12 tokens a second; 3 of 40 images have the label 'signature'",
        "set dataset.credentials to the name of a secret",
        "https://example.org/a.zip?version=3",
    ):
        assert redact(text) == text


@pytest.mark.parametrize("text", SECRETS[:9])
def test_failures_and_outcomes_and_logs_hold_none(text: str) -> None:
    failed = Failed(Reason.UNSUPPORTED, f"no {text}", f"try {text}")
    assert CANARY not in f"{failed} {failed.message} {failed.hint}"
    assert CANARY not in str(outcome_of(RuntimeError(text), phase="running", step=0, rank=0))
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(Redacted(logging.Formatter("%(message)s")))
    record = logging.LogRecord("x", logging.ERROR, "x", 1, "asked %s", (text,), None)
    try:
        raise RuntimeError(text)
    except RuntimeError as error:
        record.exc_info = (type(error), error, error.__traceback__)
    handler.emit(record)
    assert "Traceback" in stream.getvalue()
    assert CANARY not in stream.getvalue()
