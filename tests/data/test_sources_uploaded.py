"""Uploads read out of the store, a folder or a bucket, as the API writes them."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from api.book.ids import new_id
from api.settings import Settings
from api.store import Store
from api.uploads.incoming import Stored
from api.uploads.vault import Vault
from tests.data.opening import check, contents, labels, make_run, open_run
from tests.data.pictures import image_file, photo
from tests.data.preparing import prepared
from tests.training.conftest import S3, s3  # noqa: F401  a fixture
from training_core.contract.errors import Failed
from training_core.contract.run_dir import RunSpec
from training_core.contract.uploads import place_of
from training_core.data.samples import Unreadable

FILES = {"pets/cat/1.png": b"one" * 10, "pets/cat/ö 2.png": b"two", "pets/dog/1.png": os.urandom(2_000_000)}
INNER = {path.removeprefix("pets/"): content for path, content in FILES.items()}


@dataclass
class Uploader:
    """A store, and the run that reads what is uploaded there."""

    folder: Path
    store: str
    credentials_file: Path | None

    def vault(self) -> Vault:
        settings = Settings.model_construct(store=self.store, store_credentials_file=self.credentials_file)
        return Vault(Store(settings))

    def upload(self, files: dict[str, bytes]) -> tuple[str, str]:
        """Id and place."""
        dataset_id, vault = new_id("dataset"), self.vault()
        stored = Stored(vault, dataset_id, 1000)
        for path, content in files.items():
            stored.begin(path)
            for start in range(0, len(content), 700_000):
                stored.write(content[start : start + 700_000])
            stored.end()
        stored.close()
        vault.settle(dataset_id, stored.files)
        return dataset_id, place_of(dataset_id, stored.files)

    def run(self, uploaded: tuple[str, str], uri: str = "{}", **dataset: Any) -> RunSpec:
        dataset_id, place = uploaded
        return make_run(
            self.folder, uri.format(dataset_id), dataset, store=self.store,
            store_credentials_file=self.credentials_file,
            references={dataset_id: place}, data_roots=[],
        )  # fmt: skip


@pytest.fixture(params=["folder", "bucket"])
def uploader(request: pytest.FixtureRequest, tmp_path: Path) -> Uploader:
    if request.param == "folder":
        return Uploader(tmp_path, (tmp_path / "store").as_uri(), None)
    bucket: S3 = request.getfixturevalue("s3")
    bucket.client().create_bucket(Bucket="store")
    return Uploader(tmp_path, "s3://store/below", bucket.credentials_file)


def archive(kind: str, files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as made:
            for path, content in files.items():
                made.writestr(path, content)
        return out.getvalue()
    with tarfile.open(fileobj=out, mode={"tar": "w", "tar.gz": "w:gz"}[kind]) as tar:  # type: ignore[call-overload]
        for path, content in files.items():
            member = tarfile.TarInfo(path)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return out.getvalue()


def test_a_folder_of_files(uploader: Uploader) -> None:
    samples, reader = open_run(uploader.run(uploader.upload(FILES)))
    assert contents(samples, reader) == FILES
    assert labels(samples) == {path: path.split("/")[1] for path in FILES}


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_archives_are_containers(uploader: Uploader, kind: str) -> None:
    uploaded = uploader.upload({f"pets.{kind}": archive(kind, FILES)})
    assert contents(*open_run(uploader.run(uploaded))) == FILES
    above = "zip" if kind == "zip" else "tar"
    assert contents(*open_run(uploader.run(uploaded, f"{above}://pets::{{}}"))) == INNER


def test_a_tar_of_samples_is_a_shard_of_a_webdataset(uploader: Uploader) -> None:
    shard = archive("tar", {"1.png": b"one", "1.cls": b"cat", "2.png": b"two", "2.cls": b"dog"})
    samples, _ = open_run(uploader.run(uploader.upload({"shard.tar": shard})))
    assert (samples.format, sorted(samples.classes)) == ("webdataset", ["cat", "dog"])


def test_the_same_content_is_the_same_version_whenever_it_was_uploaded(
    uploader: Uploader, tmp_path: Path, s3: S3  # noqa: F811
) -> None:  # fmt: skip
    pictures = {f"{('cat', 'dog')[n % 2]}/{n}.png": image_file(photo(seed=n)) for n in range(8)}
    for files in (pictures, {"p.zip": archive("zip", pictures)}, {"p.tar": archive("tar", pictures)}):
        first = prepared(uploader.run(uploader.upload(files)))
        again = prepared(uploader.run(uploader.upload(files)))
        assert (first.ready.prepared, again.ready.prepared) == ("made", "found")
        assert first.ready.dataset_version == again.ready.dataset_version
    pictures["cat/0.png"] = image_file(photo(seed=99))
    other = prepared(uploader.run(uploader.upload(pictures)))
    assert other.ready.dataset_version != first.ready.dataset_version


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "data/pets/cat/1.png").write_bytes(b"longer than before, by far"),
        lambda folder: (folder / "data/pets/cat/new.png").write_bytes(b"new"),
        lambda folder: (folder / "data/pets/dog/1.png").unlink(),
        lambda folder: (folder / "files.jsonl").write_text("{}"),
        lambda folder: (folder / "data/pets/cat/link.png").symlink_to(folder / "files.jsonl"),
        lambda folder: (folder / "data/pets/cat/out.png").symlink_to("/etc/hostname"),
    ],
)
def test_files_that_are_not_what_was_uploaded_are_refused(tmp_path: Path, change: Callable[[Path], object]) -> None:
    uploader = Uploader(tmp_path, str(tmp_path / "store"), None)
    uploaded = uploader.upload(FILES)
    change(tmp_path / "store" / "uploads" / uploaded[0])
    with pytest.raises(Failed) as failure:
        open_run(uploader.run(uploaded))
    assert failure.value.reason in {"dataset_changed", "dataset_forbidden"}


def test_a_file_with_one_bit_changed_is_not_trained_on(tmp_path: Path) -> None:
    uploader = Uploader(tmp_path, str(tmp_path / "store"), None)
    uploaded = uploader.upload(FILES)
    file = tmp_path / "store" / "uploads" / uploaded[0] / "data" / "pets/cat/1.png"
    file.write_bytes(b"oNe" + file.read_bytes()[3:])
    found = contents(*open_run(uploader.run(uploaded)))
    assert isinstance(found["pets/cat/1.png"], Unreadable)
    assert found["pets/cat/ö 2.png"] == b"two"


@pytest.mark.parametrize(
    "place", ["", "jobs/x", "uploads/{}/data/../../../secret/", "uploads/{}/data", "uploads/dataset_x/data/", "/etc/"]
)
def test_no_other_place_of_the_store_is_read(tmp_path: Path, place: str) -> None:
    uploader = Uploader(tmp_path, str(tmp_path / "store"), None)
    dataset_id, _ = uploader.upload(FILES)
    with pytest.raises(Failed) as failure:
        open_run(uploader.run((dataset_id, place.format(dataset_id))))
    check(failure.value, "dataset_unreachable")
    unknown = uploader.run((dataset_id, "x")).model_copy(update={"references": {}})
    with pytest.raises(Failed) as failure:
        open_run(unknown)
    check(failure.value, "dataset_unreachable", "not there any more")


def test_deleting_takes_all_of_it_and_nothing_else(uploader: Uploader) -> None:
    vault = uploader.vault()
    kept, gone = uploader.upload(FILES), uploader.upload(FILES)
    vault.delete(gone[0])
    vault.delete(gone[0])
    with pytest.raises(Failed):
        open_run(uploader.run(gone))
    assert contents(*open_run(uploader.run(kept))) == FILES
