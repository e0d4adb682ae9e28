"""Turns what file systems and connections raise into `Failed`, in our own words: theirs may quote requests."""

from __future__ import annotations

import zipfile
from types import TracebackType

from training_core.contract.errors import Failed, Reason

TEMPORARY_STATUS = {408, 429, 500, 502, 503, 504}
CLIENTS = {"botocore", "aiobotocore", "aiohttp", "fsspec", "s3fs", "gcsfs", "adlfs", "azure", "google", "urllib3"}
REFUSALS = {"NoCredentialsError", "TokenRetrievalError", "DefaultCredentialsError", "ClientAuthenticationError"}


class HttpStatus(OSError):
    """A server answered with an error. `retry_after` is what it asked for, in seconds."""

    def __init__(self, status: int, retry_after: float = 0.0) -> None:
        super().__init__(f"the server answered {status}")
        self.status = status
        self.retry_after = retry_after


class CutShort(ConnectionError):
    """A body ended before the length that its header named."""


class reading:  # noqa: N801  reads as the word it is: `with reading(uri):`
    def __init__(self, uri: str) -> None:
        self.uri = uri

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or isinstance(error, Failed) or not isinstance(error, Exception):
            return
        failure = failure_of(error, self.uri)
        if failure is not None:
            raise failure from error


def failure_of(error: Exception, what: str) -> Failed | None:
    """None for an error that has nothing to do with reading."""
    if isinstance(error, zipfile.BadZipFile):
        return Failed(
            Reason.DATASET_INVALID, f"{what} is not a readable zip archive", "check that the upload is complete"
        )
    if is_refusal(error):
        return Failed(
            Reason.DATASET_FORBIDDEN,
            f"access to {what} was refused",
            "check the permissions, and that dataset.credentials names credentials that may read it",
        )
    if is_missing(error):
        return Failed(Reason.DATASET_UNREACHABLE, f"there is nothing at {what}", "check the spelling of dataset.uri")
    if isinstance(error, OSError | TimeoutError) or _module(error) in CLIENTS:
        said = f"status {error.status}" if isinstance(error, HttpStatus) else type(error).__name__
        return Failed(
            Reason.DATASET_UNREACHABLE,
            f"{what} could not be read ({said})",
            "check that the store answers from the worker's host, and its endpoint_url",
        )
    return None


def is_missing(error: Exception) -> bool:
    if isinstance(error, HttpStatus):
        return error.status in {404, 410}
    return isinstance(error, FileNotFoundError | NotADirectoryError)


def is_refusal(error: Exception) -> bool:
    if isinstance(error, HttpStatus):
        return error.status in {401, 403}
    return isinstance(error, PermissionError) or type(error).__name__ in REFUSALS


def is_temporary(error: Exception) -> bool:
    """Whether the same request may well succeed in a moment."""
    if isinstance(error, HttpStatus):
        return error.status in TEMPORARY_STATUS
    if isinstance(error, TimeoutError | ConnectionError):
        return True
    if is_missing(error) or is_refusal(error):
        return False
    return _module(error) in CLIENTS and _status(error) in TEMPORARY_STATUS | {0}


def _module(error: Exception) -> str:
    return type(error).__module__.partition(".")[0]


def _status(error: Exception) -> int:
    """The HTTP status that a client library's error carries; 0 where there was no answer at all."""
    for name in ("status", "code", "status_code"):
        value = getattr(error, name, None)
        if isinstance(value, int):
            return value
    return 0
