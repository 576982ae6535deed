"""The processes that train one run together (``torchrun``): each takes a part of every batch, and gradients are added up.

A batch is the one that a single process would have. Its structures are shared out by cost, every process makes the part of
the loss that its own ones are, with the whole batch's numbers of structures and blocks underneath, and the sum of the
gradients is the gradient of the whole batch, not a mean over processes that hold unlike parts. So the number of processes
changes nothing but the order of additions, and may change whenever a run goes on.

``torch.nn.parallel.DistributedDataParallel`` is not used: it takes the mean over processes, wants every process to have
something of every batch and every parameter a gradient, and none of these holds here (docs/decisions/0019).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn

from model.architectures.deeph_e3.norms import RunningNorm
from training.tables import ConfigError

Measures = Mapping[str, Tensor]

PATIENCE: Final = timedelta(hours=24)
"""How long processes wait for each other: the first one fits H0 and makes the samples for all."""
RENDEZVOUS: Final = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What ``torchrun`` says to each process."""


class HasBlocks(Protocol):
    """Anything whose cost is known."""

    @property
    def n_blocks(self) -> int:
        """On-site blocks and listed pairs."""
        ...


@dataclass(frozen=True)
class Share:
    """Samples of a batch that one process takes.

    Attributes:
        samples: their numbers in the set.
        places: their places in the batch.
        n_whole: samples of the whole batch.
        counts: whether they are this process's; else another one counts them.
    """

    samples: Sequence[int]
    places: Sequence[int]
    n_whole: int
    counts: bool = True


class Ranks:
    """The processes of a run, as one of them sees them; alone, every method hands back what it is given.

    Args:
        rank: of this process, 0 for the first, which alone writes.
        size: number of processes.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank = rank
        self.size = size

    @property
    def is_first(self) -> bool:
        """Whether this process writes, prints and holds the run folder."""
        return self.rank == 0

    def share(self, group: Sequence[int], sizes: Sequence[HasBlocks]) -> Share:
        """What this process takes of a batch: dear samples first, each goes to the process with least to do.

        A process for which nothing is left computes the first sample too, and counts it 0 times: every process then has the
        same measures and waits at the same places.

        Args:
            group: samples of a batch.
            sizes: the cost of each sample of the set.
        """
        if self.size == 1:
            return Share(tuple(group), range(len(group)), len(group))
        load = [0] * self.size
        own: list[int] = []
        for place in sorted(range(len(group)), key=lambda place: -sizes[group[place]].n_blocks):
            taker = load.index(min(load))
            load[taker] += sizes[group[place]].n_blocks
            if taker == self.rank:
                own.append(place)
        places = sorted(own) or [0]
        return Share(tuple(group[place] for place in places), places, len(group), counts=bool(own))

    def sum(self, value: Tensor) -> Tensor:
        """Sum over the processes, on every one; not differentiated."""
        if self.size == 1:
            return value
        total = value.detach().clone()
        dist.all_reduce(total)
        return total

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Replace gradients by their sums; a parameter that has none on any process keeps none."""
        if self.size == 1:
            return
        parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flat = torch.cat([part.flatten() for part in parts])
        has_one = flat.new_tensor([p.grad is not None for p in parameters])
        total = self.sum(torch.cat([flat, has_one]))
        sums, counts = total.split([len(flat), len(has_one)])
        own = sums.split([p.numel() for p in parameters])
        for parameter, value, count in zip(parameters, own, counts.tolist(), strict=True):
            if count:
                parameter.grad = value.view_as(parameter)

    def agreed(self, reason: str) -> str:
        """Why all of them stop: the first process's reason, or another one's if it has none; empty if nobody has one."""
        return next((said for said in self.gathered(reason) if said), "")

    def gathered(self, value: Any) -> list[Any]:
        """What each process says, in their order."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value)
        return found

    def in_turn(self, own: Sequence[Measures]) -> list[Measures]:
        """What all processes measured of items that were dealt out to them one by one, in the items' order."""
        if self.size == 1:
            return list(own)
        dealt = self.gathered([{name: value.cpu() for name, value in measures.items()} for measures in own])
        places = range(max(map(len, dealt)))
        return [found[place] for place in places for found in dealt if place < len(found)]

    def wait(self) -> None:
        """Until every process is here."""
        if self.size > 1:
            dist.all_reduce(torch.zeros(()))

    def from_first(self, tensors: Mapping[str, Tensor]) -> None:
        """Overwrite tensors with those of the first process."""
        if self.size > 1:
            for name in sorted(tensors):
                dist.broadcast(tensors[name].detach(), src=0)

    @contextmanager
    def first_first(self) -> Iterator[None]:
        """The first process goes through alone; the others follow, and find in the run folder what it has made."""
        if not self.is_first:
            self.wait()
        yield
        if self.is_first:
            self.wait()


@dataclass(frozen=True)
class Part:
    """What one process computes of a batch, to be added up with the others' parts.

    Attributes:
        ranks: the processes.
        share: the samples.
        of_structures, of_blocks: shares of the whole batch's structures and blocks; over the processes they add up to 1.
    """

    ranks: Ranks
    share: Share
    of_structures: float
    of_blocks: float

    @classmethod
    def of(cls, ranks: Ranks, share: Share, n_structures: int, n_blocks: int) -> Part:
        """From the true numbers of the joined samples; those that batches are packed by may be upper limits."""
        own = torch.tensor([n_structures, n_blocks], dtype=torch.float64) * share.counts
        shares = own / ranks.sum(own)
        return cls(ranks, share, float(shares[0]), float(shares[1]))

    def structures(self, mean: Tensor) -> Tensor:
        """This process's part of a mean over structures, from the mean over its own."""
        return mean if self.ranks.size == 1 else self.of_structures * mean

    def blocks(self, mean: Tensor) -> Tensor:
        """The same of a mean over blocks."""
        return mean if self.ranks.size == 1 else self.of_blocks * mean


@contextmanager
def joined(device: torch.device) -> Iterator[Ranks]:
    """The processes that ``torchrun`` started, or this one alone.

    Args:
        device: of this process. Numbers that the CPU has travel by gloo, a GPU's by NCCL.
    """
    if size_said() == 1:
        yield Ranks()
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)  # where objects are gathered
    dist.init_process_group("gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl", timeout=PATIENCE)
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


def size_said() -> int:
    """Number of processes that ``torchrun`` says; 1 without it."""
    return int(os.environ["WORLD_SIZE"]) if all(name in os.environ for name in RENDEZVOUS) else 1


def own_device(name: str) -> str:
    """The device of this process's own, where several processes train on one machine.

    Raises:
        ConfigError: one GPU by its number for several processes.
    """
    if size_said() == 1 or name == "cpu":
        return name
    if ":" in name:
        raise ConfigError(
            f'[run] device is {name!r}, and {size_said()} processes were started: give device = "cuda" or "auto", and '
            "each process takes the GPU of its own number."
        )
    if name == "auto" and not torch.cuda.is_available():
        return "cpu"
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}"


def refuse_batch_statistics(network: nn.Module, ranks: Ranks) -> None:
    """A norm over a whole batch does not fall into parts.

    Raises:
        ConfigError: several processes, and a network with such norms.
    """
    if ranks.size > 1 and any(isinstance(module, RunningNorm) for module in network.modules()):
        raise ConfigError(
            '[network] deeph_e3 norm = "local" takes statistics over a whole batch, which several processes do not see: '
            "train this network in one process (without torchrun)."
        )
