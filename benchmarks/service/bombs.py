"""What preparing a small Parquet file costs that unpacks to gigabytes: `python -m benchmarks.service.bombs`.

One image of 53 MB, which takes a few kB as it is stored, stands in every one of 40 rows. "Before" is commit d586164.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).with_name("results") / "bombs.md"
BEFORE = "d586164"
SIDE, ROWS = 4200, 40


def make_bomb(folder: Path) -> Path:
    out = io.BytesIO()
    Image.fromarray(np.zeros((SIDE, SIDE, 3), np.uint8)).save(out, "BMP")
    one = pa.array([{"bytes": out.getvalue(), "path": None}])
    rows = pa.chunked_array([one] * ROWS)
    file = folder / "train.parquet"
    table = pa.table({"image": rows, "label": ["a", "b"] * (ROWS // 2)})
    pq.write_table(table, file, compression="zstd", compression_level=19, dictionary_pagesize_limit=1 << 30)
    return file


def prepare(code: Path, file: Path, folder: Path) -> tuple[float, float, str]:
    """Seconds, peak memory in MB and the outcome of one preparation by the code in `code`."""
    run_dir = folder / "run"
    run_dir.mkdir(parents=True)
    spec = {"task": "image-classification", "dataset": {"uri": f"file://{file}"}}
    run = {"spec": spec, "store": f"file://{folder}/store", "cache_dir": f"{folder}/cache", "threads": 2}
    (run_dir / "spec.json").write_text(json.dumps({**run, "data_roots": [str(file.parent)]}))
    command = [sys.executable, "-m", "training_core.runtime.launch", str(run_dir), "--stage", "prepare"]
    began = time.perf_counter()
    with (run_dir / "log.txt").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=code, env={**os.environ, "PYTHONPATH": str(code)}, stdout=log, stderr=log
        )
    _, _, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    outcome = run_dir / "outcome.json"
    said = json.loads(outcome.read_bytes()) if outcome.exists() else {}
    return seconds, used.ru_maxrss / 1000, f"{said['reason']}: {said['message']}" if said.get("reason") else "prepared"


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="trainyard-bombs-") as name:
        folder = Path(name)
        (folder / "data").mkdir()
        file, earlier = make_bomb(folder / "data"), folder / "earlier"
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--detach", str(earlier), BEFORE], check=True, capture_output=True)
        try:
            found = [("before", *prepare(earlier, file, folder / "1")), ("after", *prepare(ROOT, file, folder / "2"))]
        finally:
            subprocess.run([*git, "remove", "--force", str(earlier)], check=True)
        lines = [
            "`python -m benchmarks.service.bombs`",
            "",
            f"A Parquet file of {file.stat().st_size / 1000:,.0f} kB: {ROWS} rows with one image of {SIDE} x {SIDE}.",
            "",
            "| | seconds | peak memory, MB | outcome |",
            "|---|---|---|---|",
            *(f"| {when} | {seconds:.1f} | {peak:,.0f} | {said} |" for when, seconds, peak, said in found),
        ]
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
