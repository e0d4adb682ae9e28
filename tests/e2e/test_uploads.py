"""An upload through the real service: by a form and in parts, prepared once, trained on, and then deleted."""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path

from tests.e2e.conftest import Service

PART_BYTES = 20_000


def zipped(folder: Path) -> bytes:
    """Class folders below `pets/`; thirty images of each class."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for path in sorted(folder.rglob("*.png")):
            if int(path.stem) < 30:
                archive.write(path, f"pets/{path.relative_to(folder).as_posix()}")
    return out.getvalue()


def test_a_zip_is_uploaded_in_two_ways_prepared_once_and_trained_on(service: Service, data: Path) -> None:
    content = zipped(data / "small")
    with service.http() as http:
        answer = http.post("/v1/datasets", files={"files": ("pets.zip", content)})
        assert answer.status_code == 201, answer.text
        form = answer.json()
        url = http.post("/v1/datasets", json={"name": "pets.zip", "size_bytes": len(content)}).headers["location"]
        for start in reversed(range(0, len(content), PART_BYTES)):
            part = content[start : start + PART_BYTES]
            assert http.put(f"{url}/parts/{start // PART_BYTES + 1}", content=part).status_code == 200
        parts = http.post(f"{url}/complete").json()
    assert form["sha256"] == parts["sha256"] == hashlib.sha256(content).hexdigest()
    ended = []
    for dataset in (form, parts):
        spec = {"dataset": {"uri": dataset["id"]}, "model": {"name": "small_cnn"}, "training": {"epochs": 1}}
        job = service.ended(service.submit(**spec))
        assert job["status"] == "succeeded", job["error"]
        ended.append(job)
    first, second = (job["data"] for job in ended)
    assert (sum(first["images"].values()), len(first["classes"])) == (90, 3)
    assert (first["prepared"], second["prepared"]) == ("made", "found")
    with service.http() as http:
        for dataset in (form, parts):
            assert http.delete(f"/v1/datasets/{dataset['id']}").status_code == 204
        kept = http.get(f"/v1/jobs/{ended[0]['id']}/checkpoints").json()["data"][0]
        model = http.get(kept["download_url"])
    assert hashlib.sha256(model.content).hexdigest() == kept["sha256"]["model.safetensors"]
    assert list((service.state / "store" / "uploads").iterdir()) == []
