"""Ray Tune's part of `benchmarks.search.overhead`: the same trainings as a user of Ray writes them; one JSON line.

python -m benchmarks.search.overhead_ray ARRAYS.npz SETTINGS.json
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from ray import tune

from training_core.vision.networks import make_model


def train(parameters: dict[str, Any]) -> None:
    """One trial: read the images, train, judge, save, report. `spent` are its seconds in steps and evaluations."""
    entered = time.time()
    settings = parameters["settings"]
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with np.load(settings["arrays"]) as arrays:
        images, labels = torch.from_numpy(arrays["images"]), torch.from_numpy(arrays["labels"])
        judged, truth = torch.from_numpy(arrays["validation_images"]), torch.from_numpy(arrays["validation_labels"])
    model = make_model("small_cnn", channels=images.shape[1], classes=settings["classes"])
    optimizer = torch.optim.AdamW(model.parameters(), lr=parameters["learning_rate"])
    began = time.time()
    order = torch.cat([torch.randperm(len(images)) for _ in range(settings["epochs"])])
    size = settings["batch_size"]
    for step in range(settings["steps"]):
        rows = order[step * size : (step + 1) * size]
        loss = torch.nn.functional.cross_entropy(model(as_input(images[rows])), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if (step + 1) % settings["steps_per_epoch"] == 0:
            accuracy = judge(model, judged, truth, size)
    spent = time.time() - began
    told = {"accuracy": accuracy, "entered": entered, "spent": spent}
    with tempfile.TemporaryDirectory() as folder:
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, Path(folder) / "checkpoint.pt")
        tune.report({**told, "left": time.time()}, checkpoint=tune.Checkpoint.from_directory(folder))


def as_input(images: torch.Tensor) -> torch.Tensor:
    return (images.float() - 73.0) / 90.0


@torch.no_grad()
def judge(model: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor, size: int) -> float:
    model.eval()
    right = [
        (model(as_input(some)).argmax(1) == classes).sum()
        for some, classes in zip(images.split(size), labels.split(size), strict=True)
    ]
    model.train()
    return float(sum(right)) / len(labels)


def main() -> None:
    arrays, settings = sys.argv[1], json.loads(Path(sys.argv[2]).read_text())
    paths = {"env_vars": {"PYTHONPATH": os.getcwd(), "OMP_NUM_THREADS": "1"}}
    ray.init(num_cpus=settings["cores"], include_dashboard=False, log_to_driver=False, runtime_env=paths)
    share = settings["cores"] / settings["parallel"]
    space = {"learning_rate": tune.loguniform(1e-4, 1e-2), "settings": {**settings, "arrays": arrays}}
    with tempfile.TemporaryDirectory() as folder:
        tuner = tune.Tuner(
            tune.with_resources(train, {"cpu": share}),
            param_space=space,
            tune_config=tune.TuneConfig(
                num_samples=settings["trials"],
                max_concurrent_trials=settings["parallel"],
                metric="accuracy",
                mode="max",
            ),
            run_config=tune.RunConfig(storage_path=folder, verbose=0),
        )
        began = time.time()
        results = tuner.fit()
        seconds = time.time() - began
        assert not results.errors, results.errors
        trials = [{name: one.metrics[name] for name in ("entered", "spent", "left", "accuracy")} for one in results]
    print(json.dumps({"seconds": seconds, "trials": trials}))
    ray.shutdown()


if __name__ == "__main__":
    main()
