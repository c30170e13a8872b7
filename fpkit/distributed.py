"""One job on several processes, as ``torchrun`` starts them.

In a training every rank makes and embeds its share of a batch. Embeddings, the statistics of
batch normalisation and gradients are put together, so that a step is the step of one process, up
to rounding. Nothing here touches ``torch.distributed`` in a process that runs alone.
"""

import itertools
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as distributed
from torch import Tensor, nn

_ARRIVED = "arrived"
_SHORTEST, _LONGEST = 1e-3, 0.1  # seconds between two looks at who is here
_meetings = itertools.count()


def this_rank() -> tuple[int, int]:
    """Rank and number of ranks that torchrun has given this process."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


def rank_device(device: str | torch.device) -> torch.device:
    """The device of this rank: where ranks share a machine with several GPUs, each has its own."""
    device = torch.device(device)
    rank, ranks = this_rank()
    if device.type == "cuda" and device.index is None and ranks > 1:
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", rank)))
    return device


@dataclass(frozen=True)
class Ranks:
    """The processes that work together; alone, every method does nothing at no cost.

    Attributes
    ----------
    rank, count : int
        Which of them this is, from 0, and how many there are.
    store : torch.distributed.Store, optional
        Theirs; None for one that is alone.
    """

    rank: int = 0
    count: int = 1
    store: distributed.Store | None = None

    @property
    def first(self) -> bool:
        """Whether this rank speaks and writes for all."""
        return self.rank == 0

    def any(self, flag: bool) -> bool:
        """Whether `flag` is set on any rank; all ranks wait here for each other."""
        if self.count == 1:
            return flag
        flags = torch.tensor([int(flag)])
        distributed.all_reduce(flags, op=distributed.ReduceOp.MAX)
        return bool(flags[0])

    def meet(self) -> None:
        """Wait for all ranks, for hours if need be; Ctrl-C and SIGTERM end the wait at once.

        A collective would not let a signal through until the others are here, nor let go of the
        process.
        """
        if self.store is not None:
            mine, pause = self.store.add(_ARRIVED, 1), _SHORTEST
            expected = -(-mine // self.count) * self.count  # nobody is a meeting ahead
            while self.store.add(_ARRIVED, 0) < expected:
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST)
        self.any(False)  # who holds the store goes when all have seen it

    def gather(self, own: Tensor) -> Tensor:
        """Rows of all ranks, one rank after the other; only the own ones have a gradient.

        Parameters
        ----------
        own : Tensor, (n, ...)
            Of one shape on all ranks.

        Returns
        -------
        Tensor, (count * n, ...)
            A loss of it has on every rank the part of its gradient that flows through the own
            rows: :meth:`sum_gradients` completes it.
        """
        if self.count == 1:
            return own
        parts = [torch.empty_like(own) for _ in range(self.count)]
        distributed.all_gather(parts, own.detach().contiguous())
        parts[self.rank] = own
        return torch.cat(parts)

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by its sum over the ranks."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        if self.count == 1 or not gradients:
            return
        total = torch.cat([gradient.flatten() for gradient in gradients])
        distributed.all_reduce(total)
        sizes = [gradient.numel() for gradient in gradients]
        for gradient, part in zip(gradients, total.split(sizes), strict=True):
            gradient.copy_(part.view_as(gradient))

    def copy_from_first(self, module: nn.Module) -> None:
        """Give all ranks the parameters and buffers that `module` has on the first."""
        if self.count > 1:
            for tensor in module.state_dict().values():
                sent = tensor.contiguous()  # weights in channels-last order are not
                distributed.broadcast(sent, src=0)
                tensor.copy_(sent)


@contextmanager
def joined_ranks(device: str | torch.device = "cpu") -> Iterator[Ranks]:
    """Connect with the other ranks, if torchrun has started any.

    Parameters
    ----------
    device : str or torch.device
        Where the tensors lie that ranks exchange: gloo on the CPU, NCCL between GPUs.
    """
    rank, count = this_rank()
    if count == 1:
        yield Ranks()
        return
    device = torch.device(device)
    backend = "gloo"
    if device.type == "cuda":
        torch.cuda.set_device(device)
        backend = "cpu:gloo,cuda:nccl"  # flags stay on the CPU
    # the others wait while the first rank validates, and while one builds its last models
    wait = timedelta(days=1)
    store, rank, count = next(distributed.rendezvous("env://", timeout=wait))
    # addresses of an earlier meeting of these processes are still in the store
    store = distributed.PrefixStore(f"fpkit-{next(_meetings)}", store)
    distributed.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=wait)
    try:
        yield Ranks(rank, count, store)
    finally:
        distributed.destroy_process_group()


class SharedBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation with the statistics of the batches of all ranks, of equal size.

    Notes
    -----
    What ``nn.SyncBatchNorm`` does on GPUs alone. Outside `joined_ranks`, and in eval mode, it is
    its parent.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training and distributed.is_initialized()):
            return super().forward(x)
        count = distributed.get_world_size()
        wide = x.to(torch.promote_types(x.dtype, torch.float32))  # under autocast, x is bfloat16
        # float64: var = mean of squares - square of mean loses digits
        var, mean = (v.double() for v in torch.var_mean(wide, (0, 2, 3), correction=0))
        mean, square = _Sum.apply(torch.stack([mean, mean.square() + var])) / count
        var = square - mean.square()
        self._track(mean.detach(), var.detach(), count * x.numel() // x.shape[1])
        mean, scale = mean.to(wide.dtype), torch.rsqrt(var + self.eps).to(wide.dtype) * self.weight
        bias, mean, scale = (v[:, None, None] for v in (self.bias, mean, scale))
        return torch.addcmul(bias, wide - mean, scale).to(x.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, var: Tensor, values: int) -> None:
        """Move the running statistics as the parent class does, which keeps unbiased variances."""
        self.num_batches_tracked += 1
        unbiased = var * values / max(1, values - 1)
        self.running_mean.lerp_(mean.to(self.running_mean), self.momentum)
        self.running_var.lerp_(unbiased.to(self.running_var), self.momentum)


def share_batch_norm(module: nn.Module) -> None:
    """Put `SharedBatchNorm2d` in place of every ``nn.BatchNorm2d``; names and tensors stay."""
    for name, child in module.named_children():
        if type(child) is nn.BatchNorm2d:
            shared = SharedBatchNorm2d(child.num_features, child.eps, child.momentum)
            for tensor in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
                setattr(shared, tensor, getattr(child, tensor))
            setattr(module, name, shared.train(child.training))
        else:
            share_batch_norm(child)


class _Sum(torch.autograd.Function):
    """Sum over the ranks; so is its gradient."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        distributed.all_reduce(total)
        return total
