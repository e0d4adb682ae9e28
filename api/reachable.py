"""Whether the workers that are online can read the local folder that a spec names: said before a job waits."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from api.book.models import Project, Worker
from training_core.contract.uris import Refused, parse

FORBIDDEN = (
    "dataset.uri lies outside of the folders that the workers online may read, and the job would end as "
    "dataset_forbidden: add its folder to TRAINYARD_DATA_ROOTS of a worker (`make up DATA=/folder` on one machine), "
    "or upload the files with POST /v1/datasets"
)
MISSING = "dataset.uri: there is nothing at this path, and the job would end as dataset_unreachable"


def warnings_of(session: Session, project_id: str, uri: str) -> list[str]:
    """One sentence, where no worker that is online could read the folder or file; none while no worker is there.

    Whether something lies at the path is known where the workers share the host of this process, and asked only below
    what the project may read.
    """
    path = _local_path(uri)
    online = session.scalars(select(Worker).where(Worker.status == "online")).all() if path is not None else []
    if path is None or not online:
        return []
    project = session.get_one(Project, project_id).name
    places = [(worker, place) for worker in online if (place := _place(worker, project, path)) is not None]
    if not places:
        return [FORBIDDEN]
    here = all(worker.host == socket.gethostname() for worker, _ in places)
    return [MISSING] if here and not any(os.path.exists(place) for _, place in places) else []


def _local_path(uri: str) -> str | None:
    """What the innermost link names, if that is a folder or file of a worker."""
    try:
        place = parse(uri, uploads=True)[-1]
    except Refused:
        return None
    return place.path if place.scheme == "file" else None


def _place(worker: Worker, project: str, path: str) -> str | None:
    """The absolute path on that worker, None outside of its roots. Links are followed by the worker alone."""
    roots: Sequence[str] = worker.readable.get(project) or worker.readable.get("*") or ()
    if not roots:
        return None
    place = os.path.normpath(os.path.join(roots[0], path))
    below = any(os.path.commonpath([place, root]) == os.path.normpath(root) for root in roots)
    return place if below else None
