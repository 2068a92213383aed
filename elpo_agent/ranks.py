"""The processes of one run on several devices, as torchrun starts them, and what they tell each other."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

T = TypeVar("T")

# How long one rank's rollouts may take longer than another's. A rank that has died is noticed at once.
_PATIENCE = timedelta(hours=4)


class RankLostError(RuntimeError):
    """Another process of the run has ended or does not answer, so this one cannot go on."""


@dataclass(frozen=True)
class Ranks:
    """This process among those of the run. All of them call what talks to the others, in the same order.

    Attributes:
        rank: from 0; rank 0 writes logs and checkpoints.
        size: how many there are.
        group: carries Python objects.
    """

    rank: int = 0
    size: int = 1
    group: dist.ProcessGroup | None = None

    @property
    def alone(self) -> bool:
        return self.size == 1

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def gathered(self, value: T) -> list[T]:
        """What every rank gives, in the order of ranks.

        Raises:
            RankLostError: a rank is gone.
        """
        if self.alone:
            return [value]
        out: list[Any] = [None] * self.size
        with self.noticing_loss():
            dist.all_gather_object(out, value, group=self.group)
        return out

    def of_first(self, value: T) -> T:
        """What rank 0 gives.

        Raises:
            RankLostError: a rank is gone.
        """
        return self.gathered(value if self.leads else None)[0]  # type: ignore[return-value]

    def add(self, tensor: Tensor) -> None:
        """Replace it by the sum over all ranks."""
        if not self.alone:
            with self.noticing_loss():
                dist.all_reduce(tensor)

    def align(self, model: nn.Module) -> None:
        """Give every rank rank 0's parameters."""
        if not self.alone:
            with self.noticing_loss(), torch.no_grad():
                for parameter in model.parameters():
                    dist.broadcast(parameter.data, 0)

    def shares(self, sizes: Sequence[int]) -> list[range]:
        """Consecutive items for each rank, about as much in each.

        Args:
            sizes: what each item counts.
        """
        ends = [0]
        total, done, i = sum(sizes), 0, 0
        for rank in range(self.size):
            # An item goes to the rank in whose share of the total its middle lies.
            while i < len(sizes) and (rank + 1 == self.size or (done + sizes[i] / 2) * self.size < (rank + 1) * total):
                done += sizes[i]
                i += 1
            ends.append(i)
        return [range(a, b) for a, b in pairwise(ends)]

    def share(self, sizes: Sequence[int]) -> range:
        """This rank's of `shares`."""
        return self.shares(sizes)[self.rank]

    def device(self, asked: str) -> str:
        """This rank's device, where a run asks for `asked` as in `ModelConfig`: each rank has a GPU of its own."""
        if self.alone or asked == "cpu" or (asked == "auto" and not torch.cuda.is_available()):
            return asked
        if asked not in ("auto", "cuda"):
            raise ValueError(f"model.device={asked!r} is one device for {self.size} ranks; give auto, cuda or cpu")
        return f"cuda:{_local_rank()}"

    @contextmanager
    def noticing_loss(self) -> Iterator[None]:
        """Say what happened, where talking to the others fails.

        Raises:
            RankLostError: in place of what torch raises.
        """
        try:
            yield
        except RuntimeError as error:
            if self.alone or isinstance(error, RankLostError) or not _tells_of_loss(error):
                raise
            raise RankLostError(
                f"rank {self.rank} of {self.size} lost the others: one has ended, and its own message says why"
            ) from error


ALONE = Ranks()


@contextmanager
def launched() -> Iterator[Ranks]:
    """This process among those that torchrun, or what sets its environment variables, started; else alone.

    Raises:
        ValueError: there are fewer GPUs than ranks on this machine.
        RankLostError: the others do not come.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if launched_rank() is None:
        yield ALONE
        return
    cuda = torch.cuda.is_available()
    if cuda:
        if _local_rank() >= torch.cuda.device_count():
            raise ValueError(
                f"local rank {_local_rank()} has no GPU: there are {torch.cuda.device_count()}; give torchrun "
                f"--nproc-per-node {torch.cuda.device_count()}"
            )
        torch.cuda.set_device(_local_rank())
    dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo")
    yield Ranks(dist.get_rank(), size, dist.new_group(backend="gloo", timeout=_PATIENCE))
    # Not after an error: taking leave of ranks that are gone can take for ever.
    dist.destroy_process_group()


def launched_rank() -> int | None:
    """This process's rank among several that torchrun started; None where it is alone."""
    return int(os.environ["RANK"]) if int(os.environ.get("WORLD_SIZE", "1")) > 1 else None


def _local_rank() -> int:
    return int(os.environ.get("LOCAL_RANK", "0"))


def _tells_of_loss(error: BaseException) -> bool:
    text = str(error)
    signs = ("Connection closed", "Connection reset", "Broken pipe", "Timed out", "timeout", "remote process exited")
    return isinstance(error, dist.DistError) or any(sign in text for sign in signs)
