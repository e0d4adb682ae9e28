"""The file in a checkpoint's folder that keeps retention away from it."""

from __future__ import annotations

from http import HTTPStatus

from api.errors import Code, Problem
from api.store import Store

PIN_FILE = "pinned"
MANIFEST_FILE = "manifest.json"


def put_pin(store: Store, folder: str) -> None:
    """Retention may be deleting the folder right now: one without its manifest is taken away again, and a 409."""
    store.mark(folder, PIN_FILE)
    try:
        store.look(folder, MANIFEST_FILE)
    except Problem as problem:
        if problem.status == HTTPStatus.NOT_FOUND:
            take_pin(store, folder)
            raise deleted() from None
        raise


def take_pin(store: Store, folder: str) -> None:
    store.unmark(folder, PIN_FILE)


def deleted() -> Problem:
    detail = "This checkpoint was deleted by retention before it could be pinned"
    hint = "GET …/checkpoints lists those that are left; training.keep_last_checkpoints keeps more of them"
    return Problem(409, Code.CHECKPOINT_DELETED, detail, hint=hint)
