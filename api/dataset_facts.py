"""What the book knows of a dataset before a job on it runs: from an earlier job or dataset check, or from hints."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from api import schemas
from api.book import queries, references
from api.book.models import Job
from training_core.contract.spec import JobSpec
from training_core.contract.spec.part import is_reference
from training_core.planner.recipe import DataFacts

ASSUMED_CLASSES, ASSUMED_CHANNELS, ASSUMED_IMAGE_SIZE = 10, 3, 224
CHECK_FIRST = "POST /v1/dataset_checks reads the data and trains nothing"


@dataclass(frozen=True)
class Hints:
    """What a client says of its data; it goes before what the book knows."""

    train_images: int | None = None
    classes: int | None = None
    image_size: int | None = None
    channels: int | None = None


@dataclass(frozen=True)
class KnownData:
    """`facts` is None where the number of training images is unknown: nothing can be planned without."""

    facts: DataFacts | None
    source: str | None
    missing: list[schemas.Missing]


def known_data(session: Session, project_id: str, spec: JobSpec, hints: Hints) -> KnownData:
    """Facts from the hints and from the newest work of the project on the same data, with what is only assumed."""
    earlier = _earlier(session, project_id, spec)
    data = (earlier.data or {}) if earlier is not None else {}
    found = data.get("images", {})
    train_images = hints.train_images or found.get("train") or None
    missing: list[schemas.Missing] = []

    def pick(name: str, hint: int | None, known: int | None, assumed: int) -> int:
        if (value := hint or known) is None or value == 0:
            missing.append(_assumed(name, assumed))
            return assumed
        return value

    if train_images is None:
        message = "The number of training images is not known yet"
        hint = f"{CHECK_FIRST}; or say it with ?train_images="
        return KnownData(None, None, [schemas.Missing(name="train_images", assumed=None, message=message, hint=hint)])
    size, reason = _image_size(spec, hints, data)
    facts = DataFacts(
        train_images=train_images,
        classes=pick("classes", hints.classes, len(data.get("classes", ())), ASSUMED_CLASSES),
        channels=pick("channels", hints.channels, data.get("channels"), ASSUMED_CHANNELS),
        image_size=pick("image_size", size, None, ASSUMED_IMAGE_SIZE),
        image_size_reason=reason,
    )
    told = [name for name in ("train_images", "classes", "image_size", "channels") if getattr(hints, name)]
    sources = [*([earlier.id] if earlier is not None else []), *(["hints"] if told else [])]
    return KnownData(facts, " and ".join(sources), missing)


def _image_size(spec: JobSpec, hints: Hints, data: dict[str, int]) -> tuple[int | None, str]:
    if spec.training.image_size != "auto":
        return spec.training.image_size, "as requested"
    if hints.image_size:
        return hints.image_size, "as the hint says"
    if data.get("image_size"):
        return data["image_size"], "as the images were prepared before"
    return None, "assumed"


def _assumed(name: str, value: int) -> schemas.Missing:
    message = f"{name} is not known yet; {value} is assumed"
    return schemas.Missing(name=name, assumed=value, message=message, hint=f"{CHECK_FIRST}; or say it with ?{name}=")


def _earlier(session: Session, project_id: str, spec: JobSpec) -> Job | None:
    """The newest job or dataset check of the project whose data, asked for in the same words, was ready."""
    same = select(Job).where(Job.project_id == project_id, Job.dataset_key == queries.dataset_key(spec))
    return session.scalars(same.where(Job.data.is_not(None)).order_by(Job.created_at.desc()).limit(1)).first()


def weights_model(session: Session, project_id: str, spec: JobSpec) -> str | None:
    """The network in `model.weights`, where that is of a job of this project that has its plan."""
    if spec.model.weights is None or not is_reference(spec.model.weights):
        return None
    try:
        row = references.resolve(session, project_id, spec.model.weights)
    except references.Unresolved:
        return None
    plan = session.get_one(Job, row.job_id).plan
    return None if plan is None else plan["resolved"].get("model.name")
