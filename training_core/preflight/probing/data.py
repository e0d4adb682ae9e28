"""What the data path costs: images made by one thread, as a training would have them."""

from __future__ import annotations

import time

import numpy as np

from training_core.contract.run_dir import Prepared
from training_core.planner.plan import Plan
from training_core.vision.dataset_view import Chosen
from training_core.vision.transforms import Recipe, Renderer

DATA_SECONDS, DATA_IMAGES = 0.5, 64


def image_seconds(plan: Plan, prepared: Prepared) -> float:
    """CPU seconds in which this thread makes one image of the training."""
    data = Chosen(prepared)
    renderer = Renderer(data.pack, Recipe(data.pack.folder, plan.augmentation, plan.seed))
    side, rows = plan.image_size, data.splits["train"]
    out = np.empty((min(DATA_IMAGES, len(rows)), side, side, data.pack.channels), np.uint8)
    made, spent, began = 0, 0.0, time.perf_counter()
    while time.perf_counter() - began < DATA_SECONDS:
        draws = np.resize(np.roll(rows, -made), len(out))
        start = time.process_time()
        renderer(draws, 0, out)
        spent, made = spent + time.process_time() - start, made + len(out)
    return spent / made
