"""A canary in every place where a secret can stand is found nowhere after it was used."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3  # type: ignore[import-untyped]
import psutil
import pytest
from moto.server import ThreadedMotoServer

from tests.e2e import canaries
from tests.e2e.conftest import SPEC, Service

CANARIES = {
    f"the {part} of {whose}": f"canary-{part}-of-{whose.replace(' ', '-')}-0Zq7"
    for whose in ("a project", "another project", "the operator", "a refused secret", "a uri")
    for part in ("key", "secret", "token")
}

CONTROL = "what is no secret"


def named(part: str, whose: str) -> str:
    return CANARIES[f"the {part} of {whose}"]


def entry(whose: str, endpoint: str) -> dict[str, Any]:
    return {"endpoint_url": endpoint} | {part: named(part, whose) for part in ("key", "secret", "token")}


@pytest.fixture(scope="module")
def endpoint(data: Path) -> Iterator[str]:
    """A real S3 over HTTP with the small data."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    upload(
        f"http://{host}:{port}", Path(shutil.make_archive(str(data / "guarded"), "zip", data / "small")), "small.zip"
    )
    yield f"http://{host}:{port}"
    server.stop()


def upload(endpoint: str, file: Path, name: str) -> None:
    access = {"aws_access_key_id": "k", "aws_secret_access_key": "s", "region_name": "us-east-1"}
    with closing(boto3.client("s3", endpoint_url=endpoint, **access)) as client:
        client.create_bucket(Bucket="pets")
        client.upload_file(str(file), "pets", name)


@pytest.fixture(scope="module")
def guarded(endpoint: str, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service whose every setting that can hold a secret holds one."""
    operators = tmp_path_factory.mktemp("operator") / "credentials.json"
    operators.write_text(json.dumps({"lent": {"projects": ["default"]} | entry("the operator", endpoint)}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRAINYARD_DATA_ROOTS", str(data))
        patch.setenv("TRAINYARD_SLOTS", "2")
        patch.setenv("TRAINYARD_DEVICE", "cpu")
        patch.setenv("TRAINYARD_CREDENTIALS_FILE", str(operators))
        patch.setenv("TRAINYARD_ALLOWED_SCHEMES", "file,s3,https")
        patch.setenv("TRAINYARD_ALLOWED_NETWORKS", "127.0.0.1/32")
        for name in ("TRAINYARD_DATABASE_URL", "TRAINYARD_REDIS_URL", "TRAINYARD_SECRETS_KEY"):
            patch.delenv(name, raising=False)
        service = Service(tmp_path_factory.mktemp("guarded"))
        try:
            service.start()
            yield service
        finally:
            service.stop()


def settings_of(service: Service) -> dict[str, str]:
    """What the service itself was given, by what it is."""
    worker, api = (service._known[name][1] for name in ("worker", "api"))
    passwords = {
        name: urlsplit(url).password or ""
        for name, url in (
            ("the password of PostgreSQL", api["TRAINYARD_DATABASE_URL"]),
            ("the password of Valkey", worker["TRAINYARD_REDIS_URL"]),
        )
    }
    assert all(passwords.values())
    return passwords | {"the key of secrets": api["TRAINYARD_SECRETS_KEY"], "the API key": service.key()}


def spec(uri: str, secret: str | None, **changes: Any) -> dict[str, Any]:
    training = {**SPEC["training"], "epochs": 1, "augmentation": "none"}
    return {**SPEC, "training": training, "dataset": {"uri": uri, "credentials": secret}, **changes}


def hostile(service: Service) -> Iterator[str]:
    """What the API says to secrets where none belong."""
    key, secret, token = (named(part, "a uri") for part in ("key", "secret", "token"))
    with service.http() as http:
        for uri in (
            f"s3://{key}:{secret}@pets/small",
            f"https://{key}:{secret}@h.example.org/x.zip",
            f"s3://{key}@pets/x",
        ):
            answer = http.post("/v1/jobs", json={"task": "image-classification", "dataset": {"uri": uri}})
            assert answer.status_code == 422, answer.text
            yield answer.text
        wrong = {"key": key, "secret": secret, "password": token, "endpoint_url": f"https://{key}:{secret}@h"}
        for body in (wrong, {"key": key}, {"options": {"token": token}}):
            answer = http.put("/v1/secrets/wrong", json=body)
            assert answer.status_code == 422, answer.text
            yield answer.text
        answer = http.post("/v1/jobs", json=spec("s3://pets/small", None), headers={"Authorization": f"Bearer {token}"})
        assert answer.status_code == 401
        yield answer.text


def look_at(processes: list[psutil.Process], launchers: list[psutil.Process], wanted: dict[str, str]) -> list[str]:
    """While they train: environments and command lines of all, and the memory of those that train."""
    told = canaries.of_processes([*processes, *launchers])
    shown = [found for name, content in told for found in canaries.found_in(name, content, wanted)]
    for process in processes:
        for name, content in canaries.of_memory(process):
            shown += [f"{what} is in the {name}" for what, value in wanted.items() if value.encode() in content]
    return shown


@pytest.mark.timeout(240)
def test_no_canary_is_found_anywhere(guarded: Service, endpoint: str) -> None:
    wanted = CANARIES | settings_of(guarded) | {CONTROL: "s3://pets/weights.safetensors"}
    said: list[str] = []
    with canaries.Overheard(guarded._known["worker"][1]["TRAINYARD_REDIS_URL"]) as redis_commands:
        with guarded.http() as http:
            for name, whose, place in (
                ("own", "a project", endpoint),
                ("refused", "a refused secret", f"{endpoint}/nothing/here"),
            ):
                answer = http.put(f"/v1/secrets/{name}", json=entry(whose, place))
                assert answer.status_code == 201, answer.text
                said.append(answer.text)
            said += [http.get("/v1/secrets").text, http.get("/v1/secrets/own").text]
        said += hostile(guarded)
        forever = {**SPEC["training"], "epochs": 10_000, "augmentation": "none"}
        weights = {"name": "small_cnn", "weights": "s3://pets/weights.safetensors"}
        lent = guarded.submit(**spec("s3://pets/small.zip", "lent"))
        refused = guarded.submit(**spec("s3://pets/small.zip", "refused"))
        assert guarded.ended(lent)["status"] == "succeeded", guarded.ended(lent)["error"]
        upload(endpoint, next(guarded.store.rglob("model.safetensors")), "weights.safetensors")
        training = guarded.submit(**spec("s3://pets/small.zip", "own", training=forever, model=weights))
        assert guarded.ended(refused)["status"] == "failed"
        guarded.until(training, "job.started")
        processes = guarded.trainings()
        assert processes
        worker = psutil.Process(guarded.child("worker").popen.pid)
        launchers = [one for one in worker.children() if "training_core.runtime.launcher" in " ".join(one.cmdline())]
        assert launchers
        shown = look_at(processes, launchers, wanted)
        with guarded.http() as http:
            http.post(f"/v1/jobs/{training}/cancel")
            assert guarded.ended(training)["reason"] == "cancelled_by_client"
            for job in (training, lent, refused):
                said += [http.get(f"/v1/jobs/{job}{part}").text for part in ("", "/events?limit=1000", "/checkpoints")]
            said += [http.get(path).text for path in ("/v1/audit", "/v1/workers", "/openapi.json")]
    places = [("an answer", text.encode()) for text in said]
    places += [("Redis", command) for command in redis_commands.commands]
    places += canaries.of_database(guarded._known["api"][1]["TRAINYARD_DATABASE_URL"])
    kept = (guarded.state / "databases", guarded.secrets_key_file, guarded.key_file, guarded.env_file)
    places += canaries.of_files(guarded.state, without=kept)
    tickets = [one for name, one in places if name == "Redis" and canaries.found_in(name, one, {"x": '"sealed": "'})]
    assert tickets, "nothing was overheard"
    shown += [found for name, content in places for found in canaries.found_in(name, content, wanted)]
    seen = {one.removeprefix(f"{CONTROL} is in ") for one in shown if one.startswith(CONTROL)}
    for place in ("the memory of", "the table public.jobs", "Redis", "an answer", str(guarded.state / "work")):
        assert any(one.startswith(place) for one in seen), f"nothing at all is found in {place}"
    assert [one for one in shown if not one.startswith(CONTROL)] == []
