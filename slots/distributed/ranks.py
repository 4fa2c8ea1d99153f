"""What processes that work on one fit tell each other: `Ranks`, and `ALONE` for the usual single process.

Every process runs the same program on the same data and holds the same slots. Work that costs something is dealt out in
pieces whose shapes do not depend on how many processes there are, and each piece is given back in its place. Only
integers are added and floats compared, never summed: so the result has the same bits for any number of processes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

_T = TypeVar("_T")

_PIECES_A_TURN = 4  # of each process, between exchanges


class Ranks:
    """A single process; `slots.distributed.process_group.ProcessRanks` is one of several.

    Attributes
    ----------
    rank : int
        Which process this is, in [0, size).
    size : int
        How many there are, >= 1.

    Examples
    --------
    >>> alone = Ranks()
    >>> alone.mine(["a", "b"]), alone.in_order([(torch.tensor([1]),)])
    (['a', 'b'], [(tensor([1]),)])
    """

    rank, size = 0, 1

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    def mine(self, pieces: Sequence[_T]) -> list[_T]:
        """Pieces of work that are this process's: every ``size``-th."""
        return list(pieces[self.rank :: self.size])

    def each(self, pieces: Sequence[_T], work: Callable[[_T], tuple[Tensor, ...]]) -> list[tuple[Tensor, ...]]:
        """What some work gives for each piece, in their order; processes share it.

        Results are exchanged every few pieces: so nobody works long for one who is gone.

        Parameters
        ----------
        pieces : sequence
            Pieces of work, the same in all processes.
        work : callable
            From a piece to tensors, as many for each piece.

        Returns
        -------
        list of tuple of tensors
            The same in all processes. Where the work gives no tensors, several processes get an empty list.
        """
        found: list[tuple[Tensor, ...]] = []
        for i in range(0, len(pieces), self.size * _PIECES_A_TURN):
            turn = pieces[i : i + self.size * _PIECES_A_TURN]
            found += self.in_order([work(piece) for piece in self.mine(turn)])
        return found

    def gather(self, tensors: Sequence[Tensor]) -> list[list[Tensor]]:
        """The tensors of every process, in the order of the processes.

        Parameters
        ----------
        tensors : sequence of tensors
            Of any kinds and shapes; other processes may give others, and fewer.

        Returns
        -------
        list of list of tensors
            On the device of the first tensor given here.
        """
        return [list(tensors)]

    def in_order(self, found: Sequence[tuple[Tensor, ...]]) -> list[tuple[Tensor, ...]]:
        """What all processes found for the pieces that `mine` dealt out, in the order of the pieces.

        Parameters
        ----------
        found : sequence of tuples of tensors
            Of each piece of this process; all tuples, also those of other processes, hold as many tensors.
        """
        return list(found)

    def largest(self, values: Tensor) -> Tensor:
        """Element by element the largest of all processes, for tensors of one shape."""
        return values

    def total(self, counts: Tensor) -> Tensor:
        """Element by element the sum over all processes, for integer tensors of one shape."""
        return counted(counts)

    def exchange(self, mine: Tensor) -> list[Tensor]:
        """`gather` of one tensor that has the same shape and kind in all processes, without a look at these."""
        return [mine]

    def from_first(self, make: Callable[[], Tensor]) -> Tensor:
        """What the first process makes, where others could make something else: a search that is given a time."""
        return make()

    def agreed(self, asked: Callable[[], bool] | None) -> Callable[[], bool]:
        """A question that is answered alike in all processes, yes where it is in one; no where there is none."""
        if asked is None:
            return lambda: False
        return lambda: bool(self.total(torch.tensor(int(asked()))))

    def check_same(self, digest: str, what: str) -> None:
        """Raise a `UsageError` where processes hold different things.

        Parameters
        ----------
        digest : str
            Of what this process holds.
        what : str
            Its name for the message, such as "data".
        """

    def leave(self) -> None:
        """Say that this process needs the others no more."""


def counted(counts: Tensor) -> Tensor:
    """The counts, or an error for what is none."""
    if counts.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"`counts` must be integers, got {counts.dtype}. Sums of floats depend on their order.")
    return counts


ALONE = Ranks()
"""The usual single process."""
