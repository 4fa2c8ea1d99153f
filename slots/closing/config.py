"""How a fit is closed, and what the closing pass reports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from slots.closing.vouching import Vouching
from slots.deprecation import renamed
from slots.errors import UsageError
from slots.shapes import Ids


@renamed(closing="mode")
@dataclass(frozen=True)
class ClosingConfig:
    """How a fit is closed: how many slots stay, and how wide support caps are.

    Parameters
    ----------
    mode : {"compact", "full"}
        ``compact``: a slot stays if the cover needs it or it owns at least ``min_gain`` examples, and a new one must
        match that many that nobody matched. ``full``: every training example is matched, at precision 1.
    quantile : float, default 0.01
        Share of a slot's own examples left outside its support cap; ``full`` leaves none.
    support_share : float, default 0.97
        Share of held-out data, of that inside a precision cap of its own label, which the support caps must keep.
    min_gain : int, optional
        Default: 1 in 5,000 training examples, at least 2.
    max_candidates : int, default 500
        Unmatched examples tried as new slots by ``compact``; ``full`` tries all.
    reach : float in (0, 1], default 1.0
        Share of the matches that is kept when, at the end, all support caps are made smaller by one angle: less is
        matched, and less of a class that comes later is swallowed. 0.8 suits a model that will meet new classes.
    vouch : float in (0, 1), optional
        Share of the matched answers that shall be right on new data of the same kind, default 0.98. Examples that
        trained nothing decide how much smaller all precision caps must be for it (`slots.closing.vouching`). None, and
        the mode ``full``, leave the caps as the training data set them.
    open_share : float in [0, 1), optional
        Share of the examples that trained nothing which must stay unmatched for it, however right the matches are:
        0.2, those that ``reach`` gives up included, where features are given or a frozen network makes them and
        `AutoConfig` chooses the rest, since that network may have seen the examples in its own training and answer new
        ones worse; else 0. Pass 0 for features of a network that has not.
    """

    mode: Literal["compact", "full"] = "compact"
    quantile: float = 0.01
    support_share: float = 0.97
    min_gain: int | None = None
    max_candidates: int = 500
    reach: float = 1.0
    vouch: float | None = 0.98
    open_share: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.reach <= 1:
            raise UsageError(f"`reach` must lie in (0, 1], got {self.reach}. 0.8 gives up one match in five.")
        if self.vouch is not None and not 0 < self.vouch < 1:
            raise UsageError(f"`vouch` must lie in (0, 1), got {self.vouch}. 0.98 lets one match in fifty be wrong.")
        if self.open_share is not None and not 0 <= self.open_share < 1:
            raise UsageError(f"`open_share` must lie in [0, 1), got {self.open_share}. 0.2 leaves one in five open.")


@dataclass(frozen=True)
class ClosingReport:
    """What the closing pass did.

    Parameters
    ----------
    n_dropped, n_added : int
        Slots removed as redundant, and added for what was unmatched.
    slack : float
        Radians by which held-out data widened the support caps.
    contradictions : int64 array
        Ids of examples that no cap can match at precision 1: the same features stand under another label, or are
        zero.
    labels : int64 array of shape (example,)
        Answers of the closed model on the training data.
    matched : bool array of shape (example,)
        Training examples that some slot matches.
    vouching : Vouching or None
        How often matched answers are right on examples that trained nothing; None where none could be asked.
    """

    n_dropped: int
    n_added: int
    slack: float
    contradictions: Ids
    labels: Ids
    matched: npt.NDArray[np.bool_]
    vouching: Vouching | None = None
