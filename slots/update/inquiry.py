"""Questions in rounds: each is put where the answers so far leave most in doubt."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from slots.deprecation import renamed
from slots.progress import Progress
from slots.shapes import Ids, RawInputs
from slots.update.queries import Proposal, propose
from slots.update.self_training import Pool, PseudoLabels, SelfTrainingConfig, Shares, make_pool, self_train
from slots.update.snapshot import HasSnapshot

FIRST_ROUND = 25
"""Questions before the first answer is used: enough to meet most new classes, few enough to leave the rest to them."""


@renamed(report="progress")
class Inquiry:
    """Active learning in rounds: ask about new data, a few examples at a time, before the model is updated.

    Parameters
    ----------
    model : SlotModel
        Not changed. It needs a novelty calibration.
    x : array of shape (example, ...)
        New inputs.
    config : SelfTrainingConfig, optional
        How answers are spread. Default: `SelfTrainingConfig`'s own numbers.
    progress : callable, optional
        ``progress(step, share)``, told the progress.

    Attributes
    ----------
    proposal : Proposal
        Answers of the model and what is unmatched, without queries: pass it to `SlotModel.update`.
    pool : Pool
        What is known of the unmatched before any answer; `SlotModel.update` takes it, too.
    given : int64 array of shape (example,)
        Labels told so far, -1 elsewhere.

    Raises
    ------
    UsageError
        If the model has no novelty calibration.

    Notes
    -----
    At first nothing is known, and the most useful question is the one whose neighbourhood holds most that is novel:
    greedy coverage as in `slots.update.queries`, with each unmatched example counted by how little it resembles the
    training data. Once there are answers, they are spread (`slots.update.self_training`) and an example counts by how
    much doubt is left. So the questions go from covering to the borders between classes by themselves, without a
    switch.

    Examples
    --------
    >>> import numpy as np
    >>> from slots.training import TrainConfig, fit
    >>> rng, axes = np.random.default_rng(0), np.eye(4, dtype=np.float32)
    >>> def near(axis):
    ...     return (axes[axis] + 0.1 * rng.normal(size=(200, 4))).astype(np.float32)
    >>> x = np.concatenate([near(0), near(1)])
    >>> model, _ = fit(x, np.repeat([0, 1], 200), config=TrainConfig(epochs=1, slots_per_class=1, held_out=0.2))
    >>> new = np.concatenate([near(0), near(2), near(3)])
    >>> inquiry = Inquiry(model, new)
    >>> bool((inquiry.ask(4) >= 200).all())
    True
    """

    def __init__(
        self,
        model: HasSnapshot,
        x: RawInputs,
        *,
        config: SelfTrainingConfig | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.config = config or SelfTrainingConfig()
        snapshot = model.snapshot()
        source = snapshot.source(x)
        self.proposal: Proposal = propose(snapshot, source, budget=0, progress=progress)
        self.pool: Pool = make_pool(snapshot, source, self.proposal.prediction, progress=progress)
        self.given: Ids = np.full(len(x), -1, np.int64)

    @property
    def outlook(self) -> Pool:
        """Old name of `pool`."""
        return self.pool

    def ask(self, count: int | None = None) -> Ids:
        """The rows of ``x`` to label next.

        Parameters
        ----------
        count : int, optional
            Questions wanted (count, >= 0). There are never more than examples that no slot matches. Default: a round
            of `FIRST_ROUND`, or a third of what was told where that is more.

        Returns
        -------
        int64 array
            Most useful first; none that was told already.
        """
        told = self.given[self.pool.open] >= 0
        count = max(FIRST_ROUND, int(told.sum()) // 3) if count is None else count
        doubt = 1 - self.spread().margins if told.any() else (1 - self.pool.familiar) ** 2
        doubt[told] = 0.0
        return self.pool.open[weighted_coverage(doubt, told, self.pool.neighbours, count)]

    def tell(self, labels: Mapping[int, int]) -> None:
        """Take answers: row of ``x`` to label id."""
        for row, label in labels.items():
            self.given[int(row)] = int(label)

    def spread(self) -> PseudoLabels:
        """Pseudo-labels of the open examples, by self-training from the answers so far."""
        return self_train(self.pool, self.given, config=self.config)


def weighted_coverage(doubt: Shares, told: npt.NDArray[np.bool_], neighbours: Ids, count: int) -> Ids:
    """Greedy weighted coverage on a neighbour graph: where the most doubt lies, each example's counted once.

    Parameters
    ----------
    doubt : float64 array of shape (example,)
        Weight of each example, in [0, 1].
    told : bool array of shape (example,)
        Never picked.
    neighbours : int64 array of shape (example, neighbour)
        Places of the examples that a pick covers beside itself.
    count : int
        Picks wanted (count, >= 0); fewer where fewer are untold.

    Returns
    -------
    int64 array
        Best first, ties to the lowest place. A pick takes the doubt of its neighbours and of those it is one of.
    """
    left, barred, picked = doubt.copy(), told.copy(), []
    for _ in range(min(count, int((~told).sum()))):
        gain = left + left[neighbours].sum(1)
        gain[barred] = -1.0
        place = int(gain.argmax())
        picked.append(place)
        barred[place] = True
        left[place] = 0.0
        left[neighbours[place]] = 0.0
        left[(neighbours == place).any(1)] = 0.0
    return np.array(picked, np.int64)
