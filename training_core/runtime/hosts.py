"""What ranks on several hosts have to have in common, each host with a run dir and prepared data of its own."""

from __future__ import annotations

import torch

from training_core.contract.compute_plan import ComputePlan
from training_core.contract.errors import Failed, Reason
from training_core.contract.run_dir import Prepared, RunDir, RunSpec
from training_core.data.meta import read_meta
from training_core.distributed.ranks import Ranks


def agree(run_dir: RunDir, run: RunSpec, prepared: Prepared, ranks: Ranks) -> None:
    """The first host's plan is everybody's, and the data must be the same. Called on all ranks.

    Raises `Failed(dataset_changed)`, and `Failed(unsupported)` for what needs one file that all ranks write.
    """
    if ranks.hosts == 1:
        return
    if run.spec.model.trainable == "head":
        raise Failed(
            Reason.UNSUPPORTED,
            "model.trainable head works on one host: its ranks share the file of the features",
            "use a profile with one host, or set model.trainable to all",
        )
    own = read_meta(prepared.folder).dataset_version
    if own != (first := ranks.text_from_first(own)):
        raise Failed(
            Reason.DATASET_CHANGED,
            f"rank {ranks.rank} sees version {own[:12]} of the dataset, and the first host sees {first[:12]}",
            "submit again when the dataset does not change any more",
        )
    plan = ComputePlan.model_validate_json(ranks.text_from_first(run_dir.read_plan().model_dump_json()))
    if ranks.first_of_host:
        run_dir.write_plan(plan)
    ranks.sum(torch.zeros(1, device=ranks.device))  # it is written everywhere
