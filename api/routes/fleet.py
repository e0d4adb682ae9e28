"""`/v1/profiles` and `/v1/workers`: what can be asked for, and what there is."""

from __future__ import annotations

from fastapi import APIRouter
from sqlalchemy.orm import Session

from api import schemas
from api.book import slots
from api.book.models import Job
from api.deps import JobsReader, ProfilesOf, SessionsOf

router = APIRouter(prefix="/v1", tags=["fleet"])


@router.get("/profiles", response_model=schemas.Page[schemas.ProfileAnswer])
def list_profiles(sessions: SessionsOf, _: JobsReader, profiles: ProfilesOf) -> schemas.Page[schemas.ProfileAnswer]:
    """Every profile with its price and how many such jobs could start now."""
    with sessions() as session:
        lending = [room for room in slots.rooms(session) if room.lends]
    data = []
    for profile in profiles.by_name.values():
        serving = [room for room in lending if profile.serves(room.worker)]
        data.append(
            schemas.ProfileAnswer(
                **profile.model_dump(exclude={"price_per_hour"}),
                price_per_hour=str(profile.price_per_hour),
                available=bool(serving),
                free=sum(room.free // profile.devices for room in serving),
            )
        )
    return schemas.Page(data=data, has_more=False)


@router.get("/workers", response_model=schemas.Page[schemas.WorkerAnswer])
def list_workers(sessions: SessionsOf, caller: JobsReader) -> schemas.Page[schemas.WorkerAnswer]:
    """Every worker that ever reported; the jobs shown are those of the caller's project."""
    data = []
    with sessions() as session:
        for room in slots.rooms(session):
            worker = room.worker
            owned = [one for one in room.booked if _project_of(session, one.job_id) == caller.project_id]
            data.append(
                schemas.WorkerAnswer(
                    name=worker.name,
                    host=worker.host,
                    status=worker.status,
                    device=worker.device,
                    device_name=worker.device_name,
                    slots=worker.slots,
                    slots_free=room.free if worker.status == "online" else 0,
                    cores=worker.cores,
                    memory_bytes=worker.memory_bytes,
                    device_memory_bytes=worker.device_memory_bytes,
                    cpu_features=worker.cpu_features,
                    draining=worker.draining,
                    jobs=[one.job_id for one in owned if one.work == "train"],
                    dataset_checks=[one.job_id for one in owned if one.work == "check"],
                    last_seen_at=worker.last_seen_at,
                    version=worker.version,
                )
            )
    return schemas.Page(data=data, has_more=False)


def _project_of(session: Session, job_id: str) -> str:
    return session.get_one(Job, job_id).project_id
