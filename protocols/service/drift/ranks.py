"""Online conformal ranks: how high each arriving score stands among those before it."""

from __future__ import annotations

import base64
import binascii
from array import array
from bisect import bisect_left, bisect_right
from typing import Any

import numpy as np
import numpy.typing as npt

from slots.errors import DataError, UsageError

Floats = npt.NDArray[np.float64]


class OnlineRanks:
    """Independent uniform p-values for a stream that is exchangeable with its calibration scores.

    Parameters
    ----------
    calibration : float array of shape (calibration example,)
        Scores of familiar examples that had no part in making the score, higher = more novel; may be empty, and then
        the stream is compared with its own beginning. Of more than ``capacity`` a random part is kept.
    capacity : int, default 10000
        Most scores that are kept (>= 1). An item costs two binary searches and the move of at most ``capacity``
        numbers of eight bytes.
    seed : int, default 0
        Of the uniform numbers that break ties and choose what to forget (>= 0).
    era : int, default 0
        Each era of one seed has numbers of its own (>= 0).

    Raises
    ------
    UsageError
        If the capacity is below 1, or seed or era below 0.
    DataError
        If a score is no number.

    Notes
    -----
    The p-value of a score ``s`` among ``n`` kept ones is ``(#{kept > s} + theta (#{kept = s} + 1)) / (n + 1)`` with
    ``theta`` uniform on (0, 1]: smoothed conformal p-values (Vovk, Gammerman and Shafer, "Algorithmic learning in a
    random world", chapter 2). Until ``capacity`` is reached nothing is forgotten, and if calibration and stream
    together are exchangeable, the p-values are independent and uniform (Vovk, Nouretdinov and Gammerman, "Testing
    exchangeability on-line", ICML 2003). Against a *fixed* calibration set they are not: all of them share its luck,
    and a test that runs for long finds that.

    Beyond the capacity one of ``capacity + 1`` scores is forgotten, **each with the same probability, the newest
    included**, and p-values stay independent and uniform. For let ``B`` be the kept scores and the new one. Given the
    multiset ``B`` and all later items, each order of ``B`` is equally likely, so the newest score stands uniformly
    in ``B``, and its smoothed p-value is uniform. What is forgotten is drawn without regard to the order, so it says
    nothing about that p-value; all later p-values are made from ``B`` without it, later items and further random
    numbers. So each p-value is uniform given all later ones. That the newest may go is needed: a window that forgets
    the oldest betrays that the newest stayed, and a reservoir that samples the whole past (Vitter 1985) forgets nearly
    always the newest, which is a fixed calibration set again. The price is that the memory fades: a score is kept for
    ``capacity + 1`` further items on average, so a change much slower than that is not seen.

    Examples
    --------
    >>> ranks = OnlineRanks([0.1, 0.2, 0.3], seed=1)
    >>> ranks.rank([9.0, 0.0]).round(2)
    array([0.12, 0.97])
    >>> len(ranks)
    5
    """

    def __init__(self, calibration: npt.ArrayLike = (), *, capacity: int = 10_000, seed: int = 0, era: int = 0) -> None:
        if capacity < 1:
            raise UsageError(f"`capacity` must be at least 1, got {capacity}.")
        if seed < 0 or era < 0:
            raise UsageError(f"`seed` and `era` must be at least 0, got {seed} and {era}.")
        self.capacity, self.seed, self.era = int(capacity), int(seed), int(era)
        self.n_ranked = 0
        kept = as_scores(calibration)
        if len(kept) > capacity:  # by place in the list, never by value: what is left is exchangeable as before
            chosen = np.random.default_rng([self.seed, self.era, 1]).choice(len(kept), capacity, replace=False)
            kept = kept[chosen]
        self._kept = array("d", np.sort(kept).tobytes())
        self._uniform = np.random.Generator(self._bits())

    def __len__(self) -> int:
        """Scores that are kept."""
        return len(self._kept)

    @property
    def kept(self) -> Floats:
        """The kept scores, ascending; a copy of shape (kept score,)."""
        return np.array(self._kept, np.float64)

    def rank(self, scores: npt.ArrayLike) -> Floats:
        """P-values of arriving scores, in their order; each then joins those kept.

        Parameters
        ----------
        scores : float array of shape (item,)
            Higher = more novel.

        Returns
        -------
        float64 array of shape (item,)
            In (0, 1]; small = more novel than nearly all. The same in one call and in many.

        Raises
        ------
        DataError
            If a score is no number; nothing has been ranked then.
        """
        arriving = as_scores(scores)
        uniform = self._uniform.random((len(arriving), 2))  # always two an item, so that the count is the whole state
        self.n_ranked += len(arriving)
        kept, p_values = self._kept, np.empty(len(arriving))
        for item, (score, (tie, forgotten)) in enumerate(zip(arriving.tolist(), uniform.tolist(), strict=True)):
            left, right, n = bisect_left(kept, score), bisect_right(kept, score), len(kept)
            p_values[item] = (n - right + (1 - tie) * (right - left + 1)) / (n + 1)
            kept.insert(right, score)
            if n == self.capacity:
                del kept[int(forgotten * (n + 1))]
        return p_values

    def to_json(self) -> dict[str, Any]:
        """All that the next p-values depend on.

        Returns
        -------
        dict
            For `from_json`; the kept scores are base64 of little-endian float64.
        """
        kept = base64.b64encode(self.kept.astype("<f8").tobytes()).decode("ascii")
        return {
            "capacity": self.capacity, "seed": self.seed, "era": self.era, "n_ranked": self.n_ranked, "kept": kept,
        }  # fmt: skip

    @classmethod
    def from_json(cls, state: dict[str, Any]) -> OnlineRanks:
        """Go on where `to_json` was called, bit for bit.

        Parameters
        ----------
        state : dict
            What `to_json` gave.

        Returns
        -------
        OnlineRanks

        Raises
        ------
        DataError
            If the kept scores are damaged.
        KeyError
            If an entry is missing.
        """
        try:
            kept = np.frombuffer(base64.b64decode(state["kept"], validate=True), "<f8").astype(np.float64)
        except (binascii.Error, ValueError) as error:
            raise DataError(f"The kept scores of a drift state are damaged ({error}). Restart the monitor.") from None
        ranks = cls(capacity=state["capacity"], seed=state["seed"], era=state["era"])
        if len(kept) > ranks.capacity or np.isnan(kept).any() or (kept[1:] < kept[:-1]).any() or state["n_ranked"] < 0:
            raise DataError("The kept scores of a drift state are too many or not in order. Restart the monitor.")
        ranks._kept = array("d", kept.tobytes())
        ranks.n_ranked = int(state["n_ranked"])
        ranks._uniform = np.random.Generator(ranks._bits().advance(2 * ranks.n_ranked))
        return ranks

    def _bits(self) -> np.random.PCG64:
        """The random bits of this seed and era from their beginning; a float64 takes one step of it."""
        return np.random.PCG64(np.random.SeedSequence([self.seed, self.era]))


def as_scores(scores: npt.ArrayLike) -> Floats:
    """Scores as a float64 array.

    Parameters
    ----------
    scores : float array of shape (item,)
        Any real numbers; infinities too.

    Returns
    -------
    float64 array of shape (item,)

    Raises
    ------
    DataError
        If they do not form one row, or one is no number.
    """
    found = np.asarray(scores, np.float64)
    if found.ndim != 1:
        raise DataError(f"Scores must have shape (item,), got {found.shape}.")
    if np.isnan(found).any():
        place = int(np.flatnonzero(np.isnan(found))[0])
        raise DataError(f"Score {place} of {len(found)} is not a number. Leave out the input it belongs to.")
    return found
