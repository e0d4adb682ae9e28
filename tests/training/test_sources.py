"""The same images from a folder, an archive and S3 are the same training."""

from __future__ import annotations

import zipfile
from pathlib import Path

from tests.training.conftest import S3
from tests.training.running import ROOT, Run, make_run
from training_core.contract.reports import AnyReport, DataReady
from training_core.vision.prepare import prepare


def ready_of(run: Run) -> DataReady:
    said: list[AnyReport] = []
    prepare(run.spec, lambda: False, said.append)
    [ready] = [report for report in said if isinstance(report, DataReady)]
    return ready


def test_s3_for_data_and_checkpoints(tmp_path: Path, images: Path, s3: S3) -> None:
    s3.upload(images, "pets", "photos")
    local = make_run(tmp_path, f"file://{images}", job_id="local", training={"epochs": 1})
    remote = make_run(
        tmp_path,
        "s3://pets/photos",
        credentials="pets",
        credentials_file=s3.credentials_file,
        store_credentials_file=s3.credentials_file,
        store="s3://pets/store",
        training={"epochs": 1},
    )
    assert local.finish() == 0, local.log()
    assert remote.finish() == 0, remote.log()
    assert remote.series("train/loss") == local.series("train/loss")
    keys = {one["Key"] for one in s3.client().list_objects_v2(Bucket="pets", Prefix="store/")["Contents"]}
    assert f"store/{remote.last_checkpoint().path}/manifest.json" in keys


def test_an_archive_on_s3_and_its_inner_folder(tmp_path: Path, images: Path, s3: S3) -> None:
    with zipfile.ZipFile(tmp_path / "pets.zip", "w") as archive:
        for image in sorted(images.rglob("*.png")):
            archive.write(image, f"deep/{image.relative_to(images).as_posix()}")
    client = s3.client()
    client.create_bucket(Bucket="pets")
    client.upload_file(str(tmp_path / "pets.zip"), "pets", "pets.zip")
    for uri in ("zip://deep::s3://pets/pets.zip", "zip://::file://pets.zip", "zip://*::file://pets.zip"):
        run = make_run(tmp_path, uri, credentials="pets", credentials_file=s3.credentials_file)
        ready = ready_of(run)
        assert sum(ready.images.values()) == 72
        assert len(ready.classes) == 3


def test_the_sample_of_fashion_mnist_has_a_split_of_its_own(tmp_path: Path) -> None:
    uri = "zip://::file://examples/data/fashion-mnist-sample.zip"
    run = make_run(tmp_path, uri, data_roots=[ROOT])
    ready = ready_of(run)
    assert len(ready.classes) == 10
    assert ready.images == {"train": 4500, "validation": 1500, "test": 1000}
