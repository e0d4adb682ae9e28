"""`/v1/profiles` and `/v1/workers`: what can be asked for, and what there is."""

from __future__ import annotations

from fastapi import APIRouter

from api import schemas
from api.book import queries
from api.book.models import Job
from api.deps import Caller, ProfilesOf, SessionsOf

router = APIRouter(prefix="/v1", tags=["fleet"])


@router.get("/profiles", response_model=schemas.Page[schemas.ProfileAnswer])
def list_profiles(sessions: SessionsOf, _: Caller, profiles: ProfilesOf) -> schemas.Page[schemas.ProfileAnswer]:
    """Every profile with its price and how many such jobs could start now."""
    with sessions() as session:
        workers = [
            (worker.device, worker.slots, worker.slots - sum(attempt.devices for attempt in held))
            for worker, held in queries.workers_with_attempts(session)
            if worker.status == "online" and not worker.draining
        ]
    data = []
    for profile in profiles.by_name.values():
        fitting = [(slots, free) for device, slots, free in workers if device == profile.device]
        data.append(
            schemas.ProfileAnswer(
                **profile.model_dump(exclude={"price_per_hour"}),
                price_per_hour=str(profile.price_per_hour),
                available=any(slots >= profile.devices for slots, _ in fitting),
                free=sum(max(0, free) // profile.devices for _, free in fitting),
            )
        )
    return schemas.Page(data=data, has_more=False)


@router.get("/workers", response_model=schemas.Page[schemas.WorkerAnswer])
def list_workers(sessions: SessionsOf, caller: Caller) -> schemas.Page[schemas.WorkerAnswer]:
    """Every worker that ever reported; the jobs shown are those of the caller's project."""
    data = []
    with sessions() as session:
        for worker, held in queries.workers_with_attempts(session):
            owned = [a.job_id for a in held if session.get_one(Job, a.job_id).project_id == caller.project_id]
            free = worker.slots - sum(attempt.devices for attempt in held) if worker.status == "online" else 0
            data.append(
                schemas.WorkerAnswer(
                    name=worker.name,
                    host=worker.host,
                    status=worker.status,
                    device=worker.device,
                    device_name=worker.device_name,
                    slots=worker.slots,
                    slots_free=max(0, free),
                    cores=worker.cores,
                    memory_bytes=worker.memory_bytes,
                    draining=worker.draining,
                    jobs=owned,
                    last_seen_at=worker.last_seen_at,
                    version=worker.version,
                )
            )
    return schemas.Page(data=data, has_more=False)
