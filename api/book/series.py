"""Metric series as chunks of up to 512 points: written by the recorder, read by the metrics route and the stream."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Select, delete, func, select
from sqlalchemy.orm import Session

from api.book.models import MetricChunk

CHUNK_POINTS = 512


@dataclass(frozen=True, slots=True)
class Point:
    step: int
    epoch: float
    time: float
    value: float


@dataclass(slots=True)
class Series:
    """Columns of equal length. `total_points` counts what the range holds before thinning."""

    trial: int
    name: str
    steps: list[int] = field(default_factory=list)
    epochs: list[float] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    total_points: int = 0


def append(session: Session, job_id: str, trial: int, name: str, points: Sequence[Point]) -> int:
    """Add points behind the series' last step; points at or before it are known already. Returns how many were new."""
    chunk = session.scalars(
        _chunks(job_id, trial, name).order_by(MetricChunk.first_step.desc()).limit(1).with_for_update()
    ).first()
    last_step = chunk.last_step if chunk else -1
    added = 0
    for point in points:
        if point.step <= last_step:
            continue
        if chunk is None or len(chunk.steps) >= CHUNK_POINTS:
            chunk = MetricChunk(
                job_id=job_id, trial=trial, name=name, first_step=point.step, last_step=point.step,
                steps=[], epochs=[], times=[], values=[],
            )  # fmt: skip
            session.add(chunk)
        chunk.steps = [*chunk.steps, point.step]
        chunk.epochs = [*chunk.epochs, point.epoch]
        chunk.times = [*chunk.times, point.time]
        chunk.values = [*chunk.values, point.value]
        chunk.last_step = last_step = point.step
        added += 1
    session.flush()
    return added


def cut_after(session: Session, job_id: str, trial: int, step: int) -> None:
    """Forget points behind `step`: a resumed training walks those steps again."""
    behind = select(MetricChunk).where(
        MetricChunk.job_id == job_id, MetricChunk.trial == trial, MetricChunk.last_step > step
    )
    session.execute(
        delete(MetricChunk).where(
            MetricChunk.job_id == job_id, MetricChunk.trial == trial, MetricChunk.first_step > step
        )
    )
    for chunk in session.scalars(behind.with_for_update()):
        keep = sum(known <= step for known in chunk.steps)
        chunk.steps, chunk.epochs = chunk.steps[:keep], chunk.epochs[:keep]
        chunk.times, chunk.values = chunk.times[:keep], chunk.values[:keep]
        chunk.last_step = chunk.steps[-1]
    session.flush()


def read(
    session: Session, job_id: str, *, names: Iterable[str] | None = None, trials: Iterable[int] | None = None,
    after: int = -1, points: int | None = None,
) -> list[Series]:  # fmt: skip
    """Series of a job behind step `after`, thinned to about `points` each; extremes and NaN survive thinning."""
    query = select(MetricChunk).where(MetricChunk.job_id == job_id, MetricChunk.last_step > after)
    if names is not None:
        query = query.where(MetricChunk.name.in_(list(names)))
    if trials is not None:
        query = query.where(MetricChunk.trial.in_(list(trials)))
    found: dict[tuple[int, str], Series] = {}
    for chunk in session.scalars(query.order_by(MetricChunk.trial, MetricChunk.name, MetricChunk.first_step)):
        series = found.setdefault((chunk.trial, chunk.name), Series(chunk.trial, chunk.name))
        skip = sum(step <= after for step in chunk.steps)
        series.steps += chunk.steps[skip:]
        series.epochs += chunk.epochs[skip:]
        series.times += chunk.times[skip:]
        series.values += chunk.values[skip:]
    for series in found.values():
        series.total_points = len(series.steps)
        if points is not None and series.total_points > points:
            _thin(series, points)
    return list(found.values())


def heads(session: Session, job_id: str, trial: int) -> dict[str, int]:
    """The last step of each series of a trial, without reading a point."""
    query = select(MetricChunk.name, func.max(MetricChunk.last_step))
    query = query.where(MetricChunk.job_id == job_id, MetricChunk.trial == trial)
    return dict(session.execute(query.group_by(MetricChunk.name).order_by(MetricChunk.name)).all())


def _thin(series: Series, points: int) -> None:
    """Keep, of each equal range of steps, the lowest, the highest, the last and every non-finite value."""
    first, last = series.steps[0], series.steps[-1]
    width = max(1, math.ceil((last - first + 1) / max(1, points // 3)))
    keep: list[int] = []
    for bucket in _buckets(series.steps, first, width):
        finite = [index for index in bucket if math.isfinite(series.values[index])]
        chosen = {bucket[-1], *(index for index in bucket if not math.isfinite(series.values[index]))}
        if finite:
            chosen |= {min(finite, key=series.values.__getitem__), max(finite, key=series.values.__getitem__)}
        keep += sorted(chosen)
    for name in ("steps", "epochs", "times", "values"):
        column = getattr(series, name)
        setattr(series, name, [column[index] for index in keep])


def _buckets(steps: Sequence[int], first: int, width: int) -> Iterator[list[int]]:
    bucket: list[int] = []
    edge = first + width
    for index, step in enumerate(steps):
        if step >= edge and bucket:
            yield bucket
            bucket = []
            edge = first + ((step - first) // width + 1) * width
        bucket.append(index)
    if bucket:
        yield bucket


def _chunks(job_id: str, trial: int, name: str) -> Select[MetricChunk]:
    return select(MetricChunk).where(MetricChunk.job_id == job_id, MetricChunk.trial == trial, MetricChunk.name == name)
