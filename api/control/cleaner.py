"""Ends uploads to which nothing comes any more, and takes away what is left of those that are gone."""

from __future__ import annotations

import logging
import threading

from api.book import datasets
from api.book.database import Sessions
from api.errors import Problem
from api.settings import Settings
from api.store import Store
from api.uploads.holding import clear_parts, purge
from api.uploads.vault import Vault

CLEAN_SECONDS = 10.0

log = logging.getLogger("trainyard.cleaner")


class Cleaner:
    """One pass goes over uploads that are overdue, gone, or ready with parts left; what fails waits for the next."""

    def __init__(self, sessions: Sessions, settings: Settings) -> None:
        self._sessions, self._vault = sessions, Vault(Store(settings))

    def __call__(self, stop: threading.Event) -> None:
        while not stop.is_set():
            self.clean()
            stop.wait(CLEAN_SECONDS)

    def clean(self) -> None:
        with self._sessions.begin() as session:
            for row in datasets.overdue(session):
                log.info("upload %s has expired", row.id)
                datasets.end(session, row, "failed" if row.form == "body" else "expired")
        with self._sessions() as session:
            gone, done = datasets.unpurged(session), datasets.with_parts_left(session)
        for row in gone:
            purge(self._sessions, self._vault, row.id)
        for dataset_id in done:
            try:
                clear_parts(self._sessions, self._vault, dataset_id)
            except Problem as problem:
                log.warning("the parts of %s stay for now: %s", dataset_id, problem.detail)
