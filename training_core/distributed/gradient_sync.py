"""How the gradients of all ranks become one, and how all ranks give up a step for which one of them had no memory."""

# No `from __future__ import annotations`: torch looks at the annotations of a hook when it is registered.

import gc
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import distributed, nn
from torch.distributed import GradBucket  # type: ignore[attr-defined]
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks
from torch.distributed.algorithms.ddp_comm_hooks.powerSGD_hook import PowerSGDState, powerSGD_hook
from torch.futures import Future
from torch.nn.parallel import DistributedDataParallel

from training_core.contract.compute_plan import ComputePlan, ResolvedCompression
from training_core.distributed.blocks import save_activations_at_blocks
from training_core.distributed.ranks import Ranks

# DDP lays its buckets out anew after the first backward pass; from the second on their sizes are known.
CAREFUL_STEPS = 3
POWERSGD_RANK = 2
BUCKET_MIB = 25.0
# The least that DDP allows: its buckets must be the final ones.
POWERSGD_START = 2

Reduce = Callable[[GradBucket], Future[torch.Tensor]]


class Exchange:
    """One rank alone has nothing to exchange. `parallel` is what the forward pass calls.

    `obstacle` says why ranks cannot give up a step together, where they cannot. While it is `provisional`, the next
    step rounds otherwise than all after it.
    """

    obstacle: str | None = None
    provisional = False

    def __init__(self, parallel: nn.Module) -> None:
        self.parallel = parallel

    def piece(self, *, last: bool) -> AbstractContextManager[object]:
        """Around forward and backward of a piece of a batch; gradients are exchanged in the last one alone."""
        del last
        return nullcontext()

    def settle(self, *, out_of_memory: bool) -> bool:
        """After the last piece, or where this rank gave up: whether any rank ran out of memory.

        If none did, the gradients are now those of all ranks.
        """
        return out_of_memory

    def renew(self) -> nn.Module:
        """Begin anew after a step that was given up; returns what `parallel` is now. Called on all ranks."""
        return self.parallel

    def forget(self) -> None:
        """Called at each checkpoint: keep nothing that a resumed training would not have."""

    def evaluating(self) -> AbstractContextManager[object]:
        """Around evaluations, in which ranks may have different numbers of batches."""
        return nullcontext()


class Averaged(Exchange):
    """DDP, whose hook keeps account of what has been exchanged.

    In the first steps, and always with PowerSGD, buckets are exchanged after all ranks have told that they got through
    their backward pass. Later each goes out as soon as it is full, while the pass goes on; then a rank that runs out of
    memory takes part in the exchanges that the others wait for, with zeros, and tells them afterwards.

    Buffers are not exchanged in a step: nothing of a training step reads them, and an evaluation takes rank 0's. A
    static graph would change nothing, since no parameter goes unused, and puts off the first exchange.
    """

    def __init__(self, model: nn.Module, ranks: Ranks, compression: ResolvedCompression) -> None:
        self._model, self._ranks, self._compression = model, ranks, compression
        self._word = torch.zeros(1, dtype=torch.int32)
        self._start()

    def _start(self) -> None:
        self._reduce = make_reduce(self._compression)
        self._careful = CAREFUL_STEPS
        self._kept: list[GradBucket] = []
        self._sent: list[Future[torch.Tensor]] = []
        self._sizes: list[int] = []
        self._all_sizes: list[int] = []
        devices = [self._ranks.device.index] if self._ranks.device.type == "cuda" else None
        parallel = DistributedDataParallel(
            self._model,
            device_ids=devices,
            gradient_as_bucket_view=True,
            forward_sync_buffers=False,
            bucket_cap_mb=BUCKET_MIB,
        )
        parallel.register_comm_hook(None, self._on_full)
        super().__init__(parallel)

    @property
    def provisional(self) -> bool:  # type: ignore[override]
        """Sums of three numbers depend on their order, and that on the layout of the buckets."""
        return self._careful == CAREFUL_STEPS and self._ranks.world_size > 2

    @property
    def _overlaps(self) -> bool:
        return not self._careful and self._compression != "powersgd"

    def _on_full(self, _: None, bucket: GradBucket) -> Future[torch.Tensor]:
        if not self._overlaps:
            self._kept.append(bucket)
            done: Future[torch.Tensor] = Future(devices=[self._ranks.device] if bucket.buffer().is_cuda else None)
            done.set_result(bucket.buffer())
            return done
        future = self._reduce(bucket)
        self._sent.append(future)
        self._sizes.append(bucket.buffer().numel())
        return future

    def piece(self, *, last: bool) -> AbstractContextManager[object]:
        assert isinstance(self.parallel, DistributedDataParallel)  # noqa: S101  for the types
        return nullcontext() if last else self.parallel.no_sync()

    def settle(self, *, out_of_memory: bool) -> bool:
        if out_of_memory and self._overlaps:
            self._stand_in()
        self._word.fill_(int(out_of_memory))
        distributed.all_reduce(self._word)
        given_up = self._word.item() > 0
        if not given_up:
            for bucket in self._kept:
                self._reduce(bucket).wait()
            self._careful = max(0, self._careful - 1)
            self._all_sizes = [bucket.buffer().numel() for bucket in self._kept] or self._sizes
        self._kept, self._sent, self._sizes = [], [], []
        return given_up

    def _stand_in(self) -> None:
        """Take part in the exchanges that the others wait for. Their result is thrown away."""
        for future in self._sent:
            future.wait()
        dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(self._compression, torch.float32)
        for size in self._all_sizes[len(self._sizes) :]:
            distributed.all_reduce(torch.zeros(size, dtype=dtype, device=self._ranks.device))

    def renew(self) -> nn.Module:
        """A new DDP: the old one waits for the end of a backward pass that was given up."""
        self.parallel = self._model
        gc.collect()  # the old one listens to the gradients as long as it lives
        self._start()
        return self.parallel

    def forget(self) -> None:
        """PowerSGD carries what it left out into the next step, and each rank its own: a checkpoint has none of it."""
        if self._compression == "powersgd":
            self._reduce = make_reduce(self._compression)


class Sharded(Exchange):
    """FSDP2: `parallel` has been cut up by `fsdp.shard`. The ranks wait for each other's weights within a pass."""

    obstacle = "the weights are cut up among the ranks"

    def piece(self, *, last: bool) -> AbstractContextManager[object]:
        return self._synchronising(last)

    @contextmanager
    def _synchronising(self, last: bool) -> Iterator[None]:
        self.parallel.set_requires_gradient_sync(last)  # type: ignore[operator]
        yield

    def evaluating(self) -> AbstractContextManager[object]:
        from training_core.distributed.fsdp import whole  # noqa: PLC0415  costs 0.4 s, for those who use it

        return whole(self.parallel)


class Interlocked(Averaged):
    """DDP of a network whose ranks talk in the middle of a pass (SyncBatchNorm)."""

    obstacle = "the batch norm is computed over all ranks"


def make_reduce(compression: ResolvedCompression) -> Reduce:
    """The mean over all ranks of a bucket, in place: exact, in half precision, or by its main directions.

    PowerSGD: Vogels, Karimireddy & Jaggi 2019, with error feedback.
    """
    world = distributed.group.WORLD
    assert world is not None  # noqa: S101  there is a group where there are ranks
    if compression == "powersgd":
        state = PowerSGDState(world, POWERSGD_RANK, start_powerSGD_iter=POWERSGD_START)
        return lambda bucket: powerSGD_hook(state, bucket)
    hooks = {"fp16": default_hooks.fp16_compress_hook, "bf16": default_hooks.bf16_compress_hook}
    hook = hooks.get(compression, default_hooks.allreduce_hook)
    return lambda bucket: hook(world, bucket)


def distribute(model: nn.Module, compute: ComputePlan, ranks: Ranks) -> Exchange:
    """Make `model` compute as planned, in place, among `ranks`. The optimizer is made afterwards: FSDP cuts parameters.

    SyncBatchNorm exists for GPUs alone (torch 2.14).
    """
    if compute.memory_format == "contiguous":
        model.to(memory_format=torch.contiguous_format)
        model.register_forward_pre_hook(_in_plain_layout)
    if compute.activation_checkpointing:
        save_activations_at_blocks(model)
    if ranks.world_size > 1 and compute.strategy == "fsdp":
        from training_core.distributed.fsdp import shard  # noqa: PLC0415  costs 0.4 s, for those who use it

        shard(model, ranks)
    interlocked = compute.sync_batch_norm and ranks.device.type == "cuda"
    if interlocked:
        nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    if compute.compile:
        model.compile()
    if ranks.world_size == 1:
        return Exchange(model)
    if compute.strategy == "fsdp":
        return Sharded(model)
    return (Interlocked if interlocked else Averaged)(model, ranks, compute.gradient_compression)


def _in_plain_layout(_: nn.Module, given: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return tuple(one.contiguous() for one in given)
