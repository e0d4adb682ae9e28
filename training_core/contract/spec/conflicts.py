"""Parts of a spec that exclude each other, as far as that can be told without the data. Torch-free."""

from __future__ import annotations

from training_core.contract.errors import Failed, Reason
from training_core.contract.spec import JobSpec, Resizing
from training_core.contract.spec.batch_norm import check_spec


def check_together(spec: JobSpec) -> None:
    """Raises `Failed(unsupported)` for parts of a spec that exclude each other."""
    training = spec.training
    growing, head_alone = isinstance(training.resizing, Resizing), spec.model.trainable == "head"
    problems = {
        "training.resizing does not go with training.sampling.buckets: shape": growing
        and training.sampling.buckets == "shape",
        "training.resizing does not go with model.trainable: head, whose features are of the full size": growing
        and head_alone,
        "training.distillation does not go with model.trainable: head, where no teacher sees the images":
        training.distillation is not None and head_alone,
        "training.optimizer.weight_decay_by_layer does not go with model.trainable: head, which is one layer":
        bool(training.optimizer.weight_decay_by_layer) and head_alone,
    }  # fmt: skip
    for problem in [problem for problem, wrong in problems.items() if wrong]:
        raise Failed(Reason.UNSUPPORTED, problem, "leave one of them out", field=problem.partition(" ")[0])
    check_spec(spec)
