"""Ray Train's part of `benchmarks.engine.submit`: two CPU workers, the same network and batch; prints one JSON line."""

from __future__ import annotations

import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import ray
import torch
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer, prepare_data_loader, prepare_model
from torch.utils.data import DataLoader, TensorDataset

from training_core.vision.networks import make_model


def train_one_step(settings: dict[str, Any]) -> None:
    """What a user of Ray Train writes: DDP, a sampler for the ranks, one step."""
    torch.manual_seed(0)
    images, labels = torch.rand(1000, 1, 28, 28), torch.randint(0, 10, (1000,))
    loader = prepare_data_loader(DataLoader(TensorDataset(images, labels), batch_size=64, shuffle=True))
    model = prepare_model(make_model("small_cnn", channels=1, classes=10))
    optimizer = torch.optim.AdamW(model.parameters())
    for some, classes in loader:
        torch.nn.functional.cross_entropy(model(some), classes).backward()
        optimizer.step()
        break
    if torch.distributed.get_rank() == 0:
        Path(settings["file"]).write_text(str(time.time()))


def main() -> None:
    began = time.time()
    # The trainer's own actors hold cores too: of four, two are left for the workers, whatever the machine has.
    paths = {"env_vars": {"PYTHONPATH": os.getcwd(), "OMP_NUM_THREADS": "1"}}
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, runtime_env=paths)
    ready = time.time()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "first_step"
        trainer = TorchTrainer(
            train_one_step,
            train_loop_config={"file": str(file)},
            scaling_config=ScalingConfig(num_workers=2),
            run_config=RunConfig(storage_path=folder),
        )
        trainer.fit()
        print(json.dumps({"init": ready - began, "fit": float(file.read_text()) - ready}))
    ray.shutdown()


if __name__ == "__main__":
    main()
