"""Checkpoints of trials that cannot go on are deleted; what anybody needs is not, nor anything outside of the job."""

from __future__ import annotations

from pathlib import Path

import httpx2
import pytest

from api.book import queries
from api.book.models import Attempt
from api.control.sweeper import Sweeper
from api.settings import Settings
from tests.integration.conftest import Control
from tests.integration.search_book import RATE, SEARCH, Book, finished
from training_core.contract.errors import Reason
from training_core.contract.reports import CheckpointSaved


class Kept(Book):
    """Whose checkpoints have files in the store too."""

    root: Path

    def saved(self, attempt: Attempt, step: int) -> CheckpointSaved:
        report = super().saved(attempt, step)
        folder = self.root / report.path
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("manifest.json", "model.safetensors"):
            (folder / name).write_text("{}")
        return report

    def files(self) -> list[str]:
        """The trials that have some, with the steps."""
        found = self.root.glob("jobs/*/trial-*/attempt-*/step-*/model.safetensors")
        return sorted(f"{path.parts[-4].removeprefix('trial-')}/{int(path.parts[-2][5:])}" for path in found)

    def rows(self) -> list[str]:
        with self.control.sessions() as session:
            return sorted(f"{row.trial}/{row.step}" for row in queries.checkpoints_of(session, self.id))


@pytest.fixture
def book(client: httpx2.Client, control: Control, tmp_path: Path) -> Kept:
    control.heartbeat(slots=8)
    book = Kept(client, control, search={**SEARCH, "keep_trials": 2})
    book.root = tmp_path
    book.note(best=None)
    return book


@pytest.fixture
def sweeper(control: Control, settings: Settings) -> Sweeper:
    return Sweeper(control.sessions, settings)


def waits(book: Kept, rate: float, value: float) -> int:
    number = book.add(rate)
    book.reaches(book.trains(number), value)
    return number


def test_pruned_and_failed_trials_lose_theirs_and_waiting_ones_do_not(book: Kept, sweeper: Sweeper) -> None:
    pruned, _ = waits(book, 0.01, 0.5), waits(book, 0.02, 0.6)
    book.prune(pruned)
    failed = book.trains(book.add(0.03))
    book.control.report(failed, book.saved(failed, 5), finished(Reason.NAN_LOSS))
    sweeper.sweep()
    assert (book.files(), book.rows()) == (["1/25"], ["1/25"])
    assert (book.events(pruned)[-1], book.events(failed.trial)[-1]) == ("checkpoint.deleted", "checkpoint.deleted")
    sweeper.sweep()
    assert book.events(pruned).count("checkpoint.deleted") == 1


def test_of_the_completed_ones_the_best_stay(book: Kept, sweeper: Sweeper) -> None:
    for rate, value in ((0.01, 0.7), (0.02, 0.9), (0.03, 0.6), (0.04, 0.8)):
        book.completes(book.trains(book.add(rate, rung=None, until=None)), value)
    sweeper.sweep()
    assert book.files() == book.rows() == ["1/100", "3/100"]


def test_the_best_trial_of_a_search_that_was_stopped_keeps_its_own(book: Kept, sweeper: Sweeper) -> None:
    best, _ = waits(book, 0.01, 0.9), waits(book, 0.02, 0.5)
    book.note(best={"trial": best})
    book.end(Reason.LIMIT_REACHED)
    sweeper.sweep()
    assert book.files() == book.rows() == [f"{best}/25"]


def test_what_a_client_pinned_or_another_trial_adopts_stays(book: Kept, sweeper: Sweeper) -> None:
    pinned, adopted, member = (waits(book, rate, 0.5) for rate in (0.01, 0.02, 0.03))
    row = next(
        one for one in book.client.get(f"/v1/jobs/{book.id}/checkpoints").json()["data"] if one["trial"] == pinned
    )
    assert book.client.post(f"/v1/jobs/{book.id}/checkpoints/{row['id']}/pin").status_code == 200
    source = f"jobs/{book.id}/trial-{adopted}/attempt-1/step-00000025"
    book.promote(member, adopts=source, parameters={RATE: 0.04})
    book.prune(pinned)
    book.prune(adopted)
    sweeper.sweep()
    assert book.files() == ["0/25", "1/25", "2/25"]
    attempt = book.trains(member, resumed=25)
    assert attempt.resume_from == source
    book.control.report(attempt, book.saved(attempt, 30))
    sweeper.sweep()
    assert book.files() == book.rows() == ["0/25", "2/25", "2/30"]


def test_a_pin_that_only_the_store_knows_of_yet_counts(book: Kept, sweeper: Sweeper) -> None:
    number = waits(book, 0.01, 0.5)
    book.prune(number)
    next(book.root.glob("jobs/*/trial-0/attempt-1/step-*")).joinpath("pinned").touch()
    sweeper.sweep()
    assert book.files() == book.rows() == ["0/25"]


@pytest.mark.parametrize("path", ["../outside", "jobs/{other}/trial-0/attempt-1/step-1", "jobs/{id}/trial-0/*", ""])
def test_a_path_outside_of_the_trial_is_never_followed(book: Kept, sweeper: Sweeper, path: str) -> None:
    attempt = book.trains(book.add(0.01))
    path = path.format(id=book.id, other=f"{book.id[:-1]}{'1' if book.id.endswith('0') else '0'}")
    there = (book.root / path.replace("*", "attempt-1")).resolve()
    there.mkdir(parents=True, exist_ok=True)
    (there / "manifest.json").write_text("{}")
    good = book.saved(attempt, 5)
    report = good.model_copy(update={"path": path})
    book.control.report(attempt, report, good, finished(Reason.NAN_LOSS))
    sweeper.sweep()
    assert (there / "manifest.json").exists()
    assert book.rows() == ["0/5"]  # the one in the wrong place does not hold the other up
    (there / "manifest.json").unlink()


def test_a_link_out_of_the_store_is_never_followed(book: Kept, sweeper: Sweeper, tmp_path: Path) -> None:
    attempt = book.trains(book.add(0.01))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "manifest.json").write_text("{}")
    report = super(Kept, book).saved(attempt, 5)
    (book.root / report.path).parent.mkdir(parents=True)
    (book.root / report.path).symlink_to(elsewhere)
    book.control.report(attempt, report, finished(Reason.NAN_LOSS))
    sweeper.sweep()
    assert (elsewhere / "manifest.json").exists()


def test_what_is_gone_already_is_forgotten_and_plain_jobs_are_left_alone(
    book: Kept, sweeper: Sweeper, client: httpx2.Client, control: Control
) -> None:
    number = waits(book, 0.01, 0.5)
    book.prune(number)
    for file in book.root.glob("jobs/*/trial-0/attempt-1/step-*/*"):
        file.unlink()
    plain = Kept(client, control, search=None)
    plain.root = book.root
    attempt = plain.booked(0)
    control.report(attempt, plain.saved(attempt, 7), finished(Reason.NAN_LOSS))
    sweeper.sweep()
    assert (book.rows(), plain.rows(), plain.files()) == ([], ["0/7"], ["0/7"])


def test_while_the_store_is_away_nothing_is_forgotten(book: Kept, control: Control, settings: Settings) -> None:
    number = waits(book, 0.01, 0.5)
    book.prune(number)
    Sweeper(control.sessions, settings.model_copy(update={"store": f"{settings.store}/not-mounted"})).sweep()
    assert book.files() == book.rows() == ["0/25"]
