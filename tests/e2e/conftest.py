"""The whole service as a newcomer runs it, with a hand on each process."""

from __future__ import annotations

import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from local.processes import Child
from local.stack import Stack
from tests.waiting import eventually

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "examples" / "data" / "fashion-mnist-sample.zip"
CLASSES = ("Bag", "Sandal", "Trouser")
END_SECONDS = 150.0


class Service(Stack):
    """A stack whose processes can be killed and started again by name."""

    def __init__(self, state: Path) -> None:
        super().__init__(state, port=None, durable=False, say=lambda _: None)
        self._known: dict[str, tuple[list[str], dict[str, str]]] = {}

    def _start(self, name: str, arguments: list[str], settings: dict[str, str]) -> None:
        self._known[name] = (arguments, settings)
        super()._start(name, arguments, settings)

    def child(self, name: str) -> Child:
        return next(child for child in self._children if child.name == name)

    def kill(self, name: str = "") -> None:
        """SIGKILL to this one process, not to its children."""
        child = self.child(name)
        child.popen.kill()
        child.popen.wait()
        self._children.remove(child)

    def start_again(self, name: str) -> None:
        self._start(name, *self._known[name])

    def flush_redis(self) -> None:
        import redis

        with redis.Redis.from_url(self._known["worker"][1]["TRAINYARD_REDIS_URL"]) as client:
            client.flushall()

    def submit(self, **spec: Any) -> str:
        with self.http() as http:
            answer = http.post("/v1/jobs", json={"task": "image-classification", **spec})
            assert answer.status_code == 202, answer.text
            return str(answer.json()["id"])

    def http(self) -> httpx2.Client:
        headers = {"Authorization": f"Bearer {self.key()}"}
        return httpx2.Client(base_url=self.url, headers=headers, timeout=30, trust_env=False)

    def get(self, path: str) -> Any:
        """Asks again while the API is away, as a client would."""

        def ask() -> Any:
            try:
                with self.http() as http:
                    answer = http.get(path)
            except httpx2.TransportError:
                return None
            return answer if answer.status_code < 500 else None

        return eventually(ask, 30, 0.1).json()

    def ended(self, job_id: str) -> dict[str, Any]:
        """The job once it is terminal."""
        deadline = time.monotonic() + END_SECONDS
        while True:
            job: dict[str, Any] = self.get(f"/v1/jobs/{job_id}?wait=5&until=terminal")
            if job["terminal"]:
                return job
            assert time.monotonic() < deadline, job

    def events(self, job_id: str) -> list[dict[str, Any]]:
        events: list[dict[str, Any]] = self.get(f"/v1/jobs/{job_id}/events?limit=1000")["data"]
        assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
        return events

    def until(self, job_id: str, kind: str) -> None:
        eventually(lambda: any(event["type"] == kind for event in self.events(job_id)), 90, 0.1)

    def curves(self, job_id: str) -> dict[str, tuple[list[int], list[float]]]:
        """Every series that must not depend on the machine's speed."""
        found = self.get(f"/v1/jobs/{job_id}/metrics?points=100000")["series"]
        measured = ("throughput/", "gauge/")  # a gauge is read every few seconds
        return {one["name"]: (one["steps"], one["values"]) for one in found if not one["name"].startswith(measured)}

    def trainings(self) -> list[psutil.Process]:
        """Processes of any attempt of this service that are alive."""
        work = str(self.state / "work")
        found = []
        for process in psutil.process_iter():
            try:
                if any(work in part for part in process.cmdline()) and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.NoSuchProcess:
                continue
        return found


@pytest.fixture(scope="package")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders of real images: 3 x 100 out of the sample; more data sets beside them for bad input."""
    root = tmp_path_factory.mktemp("data")
    write_small_data(root)
    return root


def write_small_data(root: Path) -> None:
    with zipfile.ZipFile(SAMPLE) as sample:
        names = [name for name in sample.namelist() if name.endswith(".png")]
        classes = sorted({name.split("/")[1] for name in names})[: len(CLASSES)]
        for label in classes:
            folder = root / "small" / label
            folder.mkdir(parents=True)
            for number, name in enumerate(one for one in names if one.startswith(f"train/{label}/")):
                if number < 100:
                    (folder / f"{number:03}.png").write_bytes(sample.read(name))


@pytest.fixture(scope="package")
def service(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRAINYARD_DATA_ROOTS", str(data))
        patch.setenv("TRAINYARD_SLOTS", "2")
        patch.setenv("TRAINYARD_DEVICE", "cpu")
        patch.delenv("TRAINYARD_DATABASE_URL", raising=False)
        patch.delenv("TRAINYARD_REDIS_URL", raising=False)
        service = Service(tmp_path_factory.mktemp("service"))
        try:
            service.start()
            yield service
        finally:
            service.stop()
    assert service.trainings() == []


SPEC = {
    "dataset": {"uri": "file://small"},
    "model": {"name": "small_cnn"},
    "compute": {"profile": "cpu"},
    "training": {"epochs": 25, "batch_size": 32, "early_stopping": None, "seed": 7, "augmentation": "light"},
}


@pytest.fixture(scope="package")
def reference(service: Service) -> dict[str, tuple[list[int], list[float]]]:
    """The curves of `SPEC` when nothing happens to it."""
    job_id = service.submit(**SPEC)
    assert service.ended(job_id)["status"] == "succeeded"
    return service.curves(job_id)
