"""Every bad input ends the run in its preparation, with a reason and the name of the thing."""

from __future__ import annotations

import shutil
import urllib.request
import zipfile
from pathlib import Path

import pytest

from tests.training.conftest import S3, SECRET
from tests.training.running import Run, make_run


def refused(run: Run, reason: str, *words: str) -> None:
    assert run.finish() == 1, run.log()
    outcome = run.outcome
    assert (outcome.result, outcome.reason, outcome.phase) == ("failed", reason, "preparing"), run.log()
    for word in words:
        assert word in (outcome.message or "")
    assert SECRET not in run.log() + run.dir.outcome.read_text()


def test_a_corrupt_image_is_named(tmp_path: Path, images: Path) -> None:
    victim = images / "class-1" / "005.png"
    victim.write_bytes(victim.read_bytes()[:-40])
    refused(make_run(tmp_path, f"file://{images}"), "image_corrupt", "class-1/005.png")


def test_a_text_file_called_png_is_named(tmp_path: Path, images: Path) -> None:
    (images / "class-0" / "zzz.png").write_text("hello")
    refused(make_run(tmp_path, f"file://{images}"), "image_corrupt", "class-0/zzz.png")


def test_one_class_is_not_enough(tmp_path: Path, images: Path) -> None:
    shutil.rmtree(images / "class-0")
    shutil.rmtree(images / "class-1")
    refused(make_run(tmp_path, f"file://{images}"), "dataset_invalid", "only the class 'class-2'")


def test_images_without_class_folders(tmp_path: Path, images: Path) -> None:
    refused(make_run(tmp_path, f"file://{images}/class-0"), "dataset_invalid", "no class folders")


def test_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    refused(make_run(tmp_path, "file://nothing"), "dataset_empty", "file://nothing")


def test_a_missing_folder(tmp_path: Path) -> None:
    refused(make_run(tmp_path, "file://missing"), "dataset_unreachable", "file://missing")


@pytest.mark.parametrize("uri", ["file:///etc", "zip://::file:///etc/passwd"])
def test_a_place_outside_the_roots(tmp_path: Path, uri: str) -> None:
    refused(make_run(tmp_path, uri), "dataset_forbidden")


def test_no_roots_no_local_files(tmp_path: Path, images: Path) -> None:
    refused(make_run(tmp_path, f"file://{images}", data_roots=[]), "dataset_forbidden")


def test_a_link_out_of_the_roots(tmp_path: Path, images: Path) -> None:
    (images / "class-0" / "link.png").symlink_to("/etc/passwd")
    refused(make_run(tmp_path, f"file://{images}"), "dataset_forbidden", "class-0/link.png")


def test_an_archive_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "pets.zip").write_bytes(b"PK but no more")
    refused(make_run(tmp_path, "zip://::file://pets.zip"), "dataset_invalid", "pets.zip")


@pytest.mark.parametrize("name", ["../a/1.png", "/a/1.png"])
def test_names_that_leave_the_archive(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "pets.zip", "w") as archive:
        archive.writestr(name, b"x")
    refused(make_run(tmp_path, "zip://::file://pets.zip"), "dataset_invalid", name)


def test_a_damaged_member_is_named(tmp_path: Path, images: Path) -> None:
    path = tmp_path / "pets.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for image in sorted(images.rglob("*.png")):
            archive.write(image, image.relative_to(images).as_posix())
        offset = archive.getinfo("class-2/010.png").header_offset + 100
    content = bytearray(path.read_bytes())
    content[offset] ^= 255
    path.write_bytes(content)
    refused(make_run(tmp_path, "zip://::file://pets.zip"), "image_corrupt", "class-2/010.png")


def test_credentials_that_nobody_knows(tmp_path: Path, s3: S3) -> None:
    run = make_run(tmp_path, "s3://pets/x", credentials="cats", credentials_file=s3.credentials_file)
    refused(run, "credentials_unknown", "cats")


def test_wrong_credentials(tmp_path: Path, s3: S3) -> None:
    s3.client().create_bucket(Bucket="pets")
    check_signatures_after(s3, b"0")
    try:
        run = make_run(tmp_path, "s3://pets/x", credentials="pets", credentials_file=s3.credentials_file)
        refused(run, "dataset_forbidden", "s3://pets/x")
    finally:
        check_signatures_after(s3, b"inf")


def check_signatures_after(s3: S3, requests: bytes) -> None:
    """Without its type, werkzeug may take the body for a form and hand the server an empty one."""
    url = f"{s3.endpoint}/moto-api/reset-auth"
    request = urllib.request.Request(url, requests, {"Content-Type": "text/plain"}, method="POST")
    urllib.request.urlopen(request).close()


def test_a_bucket_that_does_not_exist(tmp_path: Path, s3: S3) -> None:
    run = make_run(tmp_path, "s3://no-such-bucket/x", credentials="pets", credentials_file=s3.credentials_file)
    refused(run, "dataset_unreachable", "s3://no-such-bucket/x")


def test_a_prefix_without_images(tmp_path: Path, s3: S3) -> None:
    s3.client().create_bucket(Bucket="pets")
    run = make_run(tmp_path, "s3://pets/none", credentials="pets", credentials_file=s3.credentials_file)
    refused(run, "dataset_empty", "s3://pets/none")


def test_a_store_that_does_not_answer(tmp_path: Path, s3: S3) -> None:
    run = make_run(tmp_path, "s3://pets/x", credentials="nobody-there", credentials_file=s3.credentials_file)
    refused(run, "dataset_unreachable", "s3://pets/x")
