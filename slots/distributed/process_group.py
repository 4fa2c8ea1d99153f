"""One of several processes, joined by torch.distributed: gloo on the CPU, NCCL beside it where there are GPUs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import timedelta

import torch
from torch import Tensor
from torch import distributed as dist

from slots.distributed.packing import pack, unpack
from slots.distributed.ranks import Ranks, counted
from slots.errors import RankLostError, UsageError

_LOOK_S = 1.0
"""Seconds between looks whether somebody is to be told of a signal; a wait in one piece would let none through."""


class ProcessRanks(Ranks):
    """One of the processes of a process group of torch.distributed.

    Parameters
    ----------
    group : process group, optional
        Default: the whole one that was made with ``torch.distributed.init_process_group``.
    """

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        self._group = group
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)

    def gather(self, tensors: Sequence[Tensor]) -> list[list[Tensor]]:
        """The tensors of every process, in the order of the processes."""
        mine = pack(tensors)
        lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        self._exchange(lengths, torch.tensor([len(mine)]))
        longest = max(map(int, lengths))
        padded = torch.zeros(longest, dtype=torch.uint8)
        padded[: len(mine)] = mine
        octets = [torch.empty(longest, dtype=torch.uint8) for _ in range(self.size)]
        self._exchange(octets, padded)
        device = tensors[0].device if tensors else torch.device("cpu")
        return [[it.to(device) for it in unpack(row)] for row in octets]

    def in_order(self, found: Sequence[tuple[Tensor, ...]]) -> list[tuple[Tensor, ...]]:
        """What all processes found for the pieces that `mine` dealt out, in the order of the pieces."""
        width = max(map(len, found), default=0)
        rows = self.gather([it for part in found for it in part])
        width = int(self.largest(torch.tensor([width])))
        parts = [[tuple(row[i : i + width]) for i in range(0, len(row), width)] if width else [] for row in rows]
        n = sum(map(len, parts))
        return [parts[place % self.size][place // self.size] for place in range(n)]

    def largest(self, values: Tensor) -> Tensor:
        """Element by element the largest of all processes, for tensors of one shape."""
        return self._reduced(values, dist.ReduceOp.MAX)

    def total(self, counts: Tensor) -> Tensor:
        """Element by element the sum over all processes, for integer tensors of one shape."""
        return self._reduced(counted(counts), dist.ReduceOp.SUM)

    def exchange(self, mine: Tensor) -> list[Tensor]:
        """`gather` of one tensor that has the same shape and kind in all processes, without a look at these."""
        found = [torch.empty_like(mine) for _ in range(self.size)]
        self._exchange(found, mine.contiguous())
        return found

    def from_first(self, make: Callable[[], Tensor]) -> Tensor:
        """What the first process makes."""
        return self.gather([make()] if self.is_first else [])[0][0]

    def check_same(self, digest: str, what: str) -> None:
        """Raise a `UsageError` where processes hold different things."""
        rows = self.gather([torch.frombuffer(bytearray(digest.encode()), dtype=torch.uint8)])
        said = {bytes(row[0].tolist()) for row in rows}
        if len(said) > 1:
            raise UsageError(
                f"All {self.size} processes must hold the same {what}, and they hold {len(said)} different ones. Give "
                "them the same files, options, versions and kind of processor."
            )

    def leave(self) -> None:
        """Wait until nobody needs anybody, and close the connections."""
        self.total(torch.zeros(1, dtype=torch.int64))
        if self._group is None:
            dist.destroy_process_group()

    def _reduced(self, values: Tensor, how: dist.ReduceOp.RedOpType) -> Tensor:
        found = values.clone()
        self._wait(lambda: dist.all_reduce(found, how, group=self._group, async_op=True))
        return found

    def _exchange(self, found: list[Tensor], mine: Tensor) -> None:
        self._wait(lambda: dist.all_gather(found, mine, group=self._group, async_op=True))

    def _wait(self, start: Callable[[], dist.Work]) -> None:
        """Wait as long as the others are there; signals get through in between."""
        try:
            work = start()
        except RuntimeError as error:
            raise self._lost() from error
        while True:
            began = time.monotonic()
            try:
                work.wait(timedelta(seconds=_LOOK_S))
            except RuntimeError as error:
                if work.is_completed() or time.monotonic() - began < _LOOK_S / 2:
                    raise self._lost() from error
            else:
                return

    def _lost(self) -> RankLostError:
        return RankLostError(
            f"Another of the {self.size} processes must still be there, and process {self.rank} has lost it. Start all "
            "again; with --resume they go on from the last epoch that was done."
        )
