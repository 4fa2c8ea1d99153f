"""What slots answer to examples that trained nothing, while their caps shrink."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from slots.features.source import FeatureSource
from slots.head.caps import SlotCaps
from slots.head.deciding.exact import exact_scores
from slots.head.decision import matching_pairs
from slots.head.hashing import IncrementalNeuralHashing
from slots.jit import compiled
from slots.shapes import Ids

_ANGLES = 200  # tried between no shrinking and no match


@dataclass(frozen=True)
class Tally:
    """Matched answers at some angle, each with the weight of its example.

    Parameters
    ----------
    matched, wrong : float
        Summed weights of the examples that are matched, and of those of them that are answered wrongly.
    effective : float
        How many examples of equal weight are worth as much (Kish 1965): the squared sum of the weights of the matched
        over the sum of their squares.
    """

    matched: float
    wrong: float
    effective: float


@dataclass(frozen=True)
class Evidence:
    """What slots answered to examples that trained nothing, while their caps shrink.

    Parameters
    ----------
    examples : int64 array of shape (pair,)
        Which example, for each that a slot matches.
    right : bool array of shape (pair,)
        Whether the slot has its label.
    depths : float64 array of shape (pair,)
        Radians inside the precision cap, > 0.
    support_depths : float64 array of shape (pair,)
        Radians inside the support cap, > 0.
    trained : bool array of shape (pair,)
        Whether the slot was trained; otherwise it was added for examples that trained slots do not match.
    labels : int64 array of shape (example,)
        Of the examples asked, matched or not.
    generations : int64 array of shape (pair,), optional
        Of the slots: the oldest that fires answers alone. Default: all are of one.
    """

    examples: Ids
    right: npt.NDArray[np.bool_]
    depths: npt.NDArray[np.float64]
    support_depths: npt.NDArray[np.float64]
    trained: npt.NDArray[np.bool_]
    labels: Ids
    generations: Ids | None = None

    @property
    def n(self) -> int:
        """Number of examples asked."""
        return len(self.labels)

    def of_trained(self) -> Evidence:
        """The same for the trained slots alone."""
        kept = self.trained
        columns = self.examples[kept], self.right[kept], self.depths[kept], self.support_depths[kept], kept[kept]
        return Evidence(*columns, self.labels, None if self.generations is None else self.generations[kept])

    def answers(self, angle: float) -> tuple[int, int]:
        """Examples that are matched, and rightly, when all precision caps are smaller by an angle."""
        _, right = self._winners(angle)
        return len(right), int(right.sum())

    def tallies(self, angle: float) -> tuple[Tally, ...]:
        """`answers` with every example alike, and, where classes differ in size, with every class alike."""
        if angle not in self._tallied:
            self._tallied[angle] = self._tally(angle)
        return self._tallied[angle]

    @cached_property
    def angles(self) -> npt.NDArray[np.float64]:
        """Angles to try, ascending: none, and where shares of the matches end."""
        ends = np.quantile(self.depths, np.linspace(0, 1, _ANGLES)) if len(self.depths) else np.zeros(0)
        return np.unique(np.concatenate([[0.0], ends]))

    @cached_property
    def _tallied(self) -> dict[float, tuple[Tally, ...]]:
        """What `tallies` said already: several levels ask for the same angles."""
        return {}

    @cached_property
    def walks(self) -> dict[float, float | None]:
        """Where walks to levels ended already (see `calibrate`): a level asks for the walks to all higher ones."""
        return {}

    def _tally(self, angle: float) -> tuple[Tally, ...]:
        examples, right = self._winners(angle)
        n, wrong = len(examples), examples[~right]
        found = [Tally(float(n), float(len(wrong)), float(n))]
        if (weights := self._by_class) is not None:
            mine = weights[examples]
            matched, squares = float(mine.sum()), float((mine**2).sum())
            found.append(Tally(matched, float(weights[wrong].sum()), matched**2 / squares if squares else 0.0))
        return tuple(found)

    def wrong_depths(self) -> npt.NDArray[np.float64]:
        """Radians by which caps must shrink until an example has no wrong match any more; one number for each such."""
        deepest = np.zeros(self.n)
        np.maximum.at(deepest, self.examples[~self.right], self.depths[~self.right])
        return deepest[deepest > 0]

    @cached_property
    def _by_class(self) -> npt.NDArray[np.float64] | None:
        """Weights of the examples, mean 1, by which each class is alike; None where it is so without them."""
        _, place, sizes = np.unique(self.labels, return_inverse=True, return_counts=True)
        if len(set(sizes.tolist())) < 2:
            return None
        weights: npt.NDArray[np.float64] = 1 / sizes[place]
        weights *= self.n / weights.sum()
        return weights

    @cached_property
    def _by_example(self) -> tuple[npt.NDArray[Any], ...]:
        """The pairs by their example and then from the oldest slot: examples, right, both depths, ages."""
        ages = np.zeros(len(self.depths), np.int64) if self.generations is None else self.generations
        order = np.lexsort((ages, self.examples))
        columns = self.examples, self.right, self.depths, self.support_depths, ages
        return tuple(column[order] for column in columns)

    def _winners(self, angle: float) -> tuple[Ids, npt.NDArray[np.bool_]]:
        """The examples that are matched, and whether the slot that answers has their label.

        Of the oldest slots that fire the one with the largest margin answers, of equal ones the first.
        """
        examples, right, depths, support_depths, ages = self._by_example
        first = _answering(examples, depths, support_depths, ages, angle)
        return examples[first], right[first]

    @classmethod
    def joined(cls, parts: Sequence[Evidence]) -> Evidence:
        """That of several heads, each asked about other examples."""
        parts = [*parts, cls.none()]
        starts = np.cumsum([0, *(part.n for part in parts)])
        return cls(
            np.concatenate([part.examples + start for part, start in zip(parts, starts, strict=False)]),
            np.concatenate([part.right for part in parts]),
            np.concatenate([part.depths for part in parts]),
            np.concatenate([part.support_depths for part in parts]),
            np.concatenate([part.trained for part in parts]),
            np.concatenate([part.labels for part in parts]),
            None,  # heads that were made for this alone have one generation
        )

    @classmethod
    def none(cls) -> Evidence:
        """That of no examples."""
        ids = np.zeros(0, np.int64)
        return cls(ids, np.zeros(0, bool), np.zeros(0), np.zeros(0), np.zeros(0, bool), ids)


@compiled
def _answering(
    examples: Ids,
    depths: npt.NDArray[np.float64],
    support_depths: npt.NDArray[np.float64],
    ages: Ids,
    angle: float,
) -> Ids:
    """The pairs that answer, in the order of their examples, when caps are smaller by an angle."""
    found = np.empty(len(examples), np.int64)
    n, best = 0, 0.0
    for i in range(len(examples)):
        if depths[i] > angle:
            margin = min(depths[i] - angle, support_depths[i])
            if n == 0 or examples[found[n - 1]] != examples[i]:
                found[n], best, n = i, margin, n + 1
            elif ages[found[n - 1]] == ages[i] and margin > best:
                found[n - 1], best = i, margin
    return found[:n]


@torch.no_grad()
def ask(
    source: FeatureSource,
    head: IncrementalNeuralHashing,
    y: npt.NDArray[np.int64],
    ids: Ids,
    *,
    caps: SlotCaps | None = None,
) -> Evidence:
    """Ask slots about examples that trained nothing.

    Parameters
    ----------
    source : FeatureSource
        The data.
    head : IncrementalNeuralHashing
        With caps that know nothing of these examples.
    y : int64 array of shape (example,)
        Labels of the data.
    ids : int64 array
        The examples.
    caps : SlotCaps, optional
        Caps to ask instead of the head's own.
    """
    caps = head.caps() if caps is None else caps

    def work(rows: slice) -> tuple[Tensor, ...]:
        features = source(ids[rows])
        example, slot = matching_pairs(features, caps)
        depth = torch.full((2, len(slot)), -math.inf, dtype=torch.float64, device=features.device)
        for view in range(features.shape[1]):
            pairs = example, torch.full_like(example, view), slot
            here = torch.stack([
                limit[slot].double().clamp(-1, 1).arccos() - exact_scores(features, axes, pairs).clamp(-1, 1).arccos()
                for limit, axes in ((caps.precision, caps.weights), (caps.support, caps.centres))
            ])  # fmt: skip
            deeper = (here > 0).all(0) & (here[0] > depth[0])
            depth = torch.where(deeper, here, depth)
        labels = torch.from_numpy(y[ids[rows]]).to(slot.device)
        right = labels[example] == caps.labels[slot]
        return example + rows.start, right, depth[0], depth[1], caps.pooled[slot], caps.generations[slot]

    found = source.each_block(len(ids), work, columns=head.n_slots)
    if not found:
        return Evidence.none()
    columns = [torch.cat(column).cpu().numpy() for column in zip(*found, strict=True)]
    return Evidence(columns[0], columns[1], columns[2], columns[3], columns[4], y[ids], columns[5])
