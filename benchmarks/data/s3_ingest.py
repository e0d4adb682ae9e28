"""S3 ingest over 20 ms of latency: our Reader against boto3 in 32 threads and s3fs's `cat`, wall and CPU seconds.

    python -m benchmarks.data.s3_ingest [--small 2000] [--large 4] [--rounds 5]

The server is another process, and answers each request 20 ms late. Every contender knows what to fetch before its clock
starts, and gets the whole content of every object. Writes results/s3_ingest.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import boto3
import fsspec
from botocore.config import Config

from benchmarks.data.s3_server import LARGE_BYTES, SMALL_BYTES
from training_core.contract.run_dir import RunSpec
from training_core.contract.spec import JobSpec
from training_core.data.formats import open_dataset
from training_core.data.samples import Samples
from training_core.data.sources.ahead import IN_FLIGHT_BYTES, REQUEST_BYTES, REQUESTS

RESULTS = Path(__file__).parent / "results" / "s3_ingest.md"
LATENCY_SECONDS = 0.020
THREADS = 32


@contextmanager
def serve(small: int, large: int) -> Iterator[str]:
    command = [sys.executable, "-m", "benchmarks.data.s3_server", str(small), str(large), str(LATENCY_SECONDS)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield f"http://127.0.0.1:{server.stdout.readline().strip()}"
        finally:
            server.terminate()


def ours(folder: Path, endpoint: str) -> tuple[Callable[[], int], Samples]:
    (folder / "credentials.json").write_text(json.dumps({"s": {"endpoint_url": endpoint, "key": "k", "secret": "s"}}))
    dataset = {"uri": "s3://pets/photos", "credentials": "s"}
    spec = JobSpec.model_validate({"task": "image-classification", "dataset": dataset})
    run = RunSpec(spec=spec, store="file:///x", cache_dir=folder, credentials_file=folder / "credentials.json")
    start = time.perf_counter()
    samples, reader = open_dataset(run, folder)
    rows = samples.table().num_rows
    print(f"listed {rows} objects in {time.perf_counter() - start:.3f} s", flush=True)

    def read() -> int:
        return sum(len(content) for _, content in reader.read(range(rows)) if isinstance(content, bytes))

    return read, samples


def with_boto3(endpoint: str, keys: list[str]) -> Callable[[], int]:
    config = Config(max_pool_connections=THREADS, s3={"addressing_style": "path"})
    options = {"aws_access_key_id": "k", "aws_secret_access_key": "s", "region_name": "us-east-1"}
    client = boto3.client("s3", endpoint_url=endpoint, config=config, **options)

    def fetch(key: str) -> int:
        return len(client.get_object(Bucket="pets", Key=key)["Body"].read())

    def read() -> int:
        with ThreadPoolExecutor(THREADS) as pool:
            return sum(pool.map(fetch, keys))

    return read


def with_s3fs(endpoint: str, keys: list[str]) -> Callable[[], int]:
    filesystem = fsspec.filesystem("s3", key="k", secret="s", endpoint_url=endpoint, skip_instance_cache=True)
    paths = [f"pets/{key}" for key in keys]
    return lambda: sum(len(content) for content in filesystem.cat(paths).values())


def measured(read: Callable[[], int], expected: int) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    size = read()
    spent = time.perf_counter() - wall, time.process_time() - cpu
    assert size == expected, f"{size} of {expected} bytes came"
    return spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", type=int, default=2000)
    parser.add_argument("--large", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    with serve(given.small, given.large) as endpoint, tempfile.TemporaryDirectory() as folder:
        reader, samples = ours(Path(folder), endpoint)
        table = samples.table()
        keys = [f"photos/{path}" for path in table.column("path").to_pylist()]
        total = sum(table.column("size").to_pylist())
        contenders = {
            "ours (Reader)": reader,
            f"boto3, {THREADS} threads": with_boto3(endpoint, keys),
            "s3fs cat": with_s3fs(endpoint, keys),
        }
        spent: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
        for _ in range(given.rounds):
            for name, read in contenders.items():
                spent[name].append(measured(read, total))
                print(f"{name:20} {spent[name][-1][0]:7.3f} s wall {spent[name][-1][1]:7.3f} s CPU", flush=True)
    report(given, total, spent)


def report(given: argparse.Namespace, total: int, spent: dict[str, list[tuple[float, float]]]) -> None:
    count = given.small + given.large
    requests = given.small + given.large * -(-LARGE_BYTES // REQUEST_BYTES)
    bound = LATENCY_SECONDS * requests / REQUESTS
    lines = [
        "# S3 ingest",
        "",
        f"`python -m benchmarks.data.s3_ingest --small {given.small} --large {given.large} --rounds {given.rounds}`: "
        f"{given.small:,} objects of {SMALL_BYTES / 1000:.0f} KB and {given.large} of 40 MiB ({total / 1e6:.0f} MB), "
        f"{LATENCY_SECONDS * 1000:.0f} ms added to each answer, medians of {given.rounds} interleaved rounds, "
        f"{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}, the server on them too.",
        "",
        "| contender | wall s | CPU s | MB/s | CPU ms an object | wall against ours |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    first = median(wall for wall, _ in spent["ours (Reader)"])
    for name, rounds in spent.items():
        wall, cpu = median(wall for wall, _ in rounds), median(cpu for _, cpu in rounds)
        row = f"{wall:.2f} | {cpu:.2f} | {total / 1e6 / wall:.0f} | {cpu / count * 1000:.2f} | {wall / first:.2f}x"
        lines.append(f"| {name} | {row} |")
    lines += [
        "",
        f"The bound by latency and concurrency is {bound:.2f} s: {requests:,} requests of at most "
        f"{REQUEST_BYTES / 2**20:.0f} MiB, {REQUESTS} at a time, {LATENCY_SECONDS * 1000:.0f} ms each. Ours holds "
        f"at most {IN_FLIGHT_BYTES / 2**20:.0f} MiB in flight; s3fs keeps every content until the last has come.",
        "",
    ]
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
