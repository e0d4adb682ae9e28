"""Images that grow during the training: the side of each epoch. Torch-free.

Small images are cheap and tell most of what there is to learn early (Howard 2018, fast.ai's DAWNBench entry; Tan & Le
2021, section 4). Evaluations always see the full side.
"""

from __future__ import annotations

from training_core.planner.plan import Plan

SMALLEST_SIDE = 8


def side_of(epoch: int, plan: Plan) -> int:
    """The side in pixels of the training images of `epoch`: from `start` of the full side to all of it at `until`.

    Rounded to a few sizes, which the planner's buffers and the device's kernels are prepared for once each.
    """
    full, growing = plan.image_size, plan.resizing
    if growing is None:
        return full
    done = epoch / max(1.0, growing.until * plan.epochs)
    if done >= 1:
        return full
    wanted, step = full * (growing.start + (1 - growing.start) * done), step_of(full)
    return min(full, max(SMALLEST_SIDE, round(wanted / step) * step))


def step_of(image_size: int) -> int:
    """What sides are multiples of: large networks halve an image five times, small ones two or three times."""
    for largest, step in ((48, 4), (96, 8), (160, 16)):
        if image_size <= largest:
            return step
    return 32
