"""How well scores part the foreign from the familiar: areas under curves, and false-positive rates both ways."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Quality:
    """AUROC, areas and false-positive rates of one detector on one foreign set; all in [0, 1].

    Parameters
    ----------
    auroc : float
        Chance that a foreign input scores higher than a familiar one, ties counting half.
    aupr_familiar, aupr_foreign : float
        Average precision with the one or the other as positive; depends on how many of each there are.
    fpr95 : float
        Familiar inputs as positive: share of foreign inputs accepted where 95 % of the familiar ones are.
    fpr95_foreign : float
        Foreign inputs as positive: share of familiar inputs flagged where 95 % of the foreign ones are.
    """

    auroc: float
    aupr_familiar: float
    aupr_foreign: float
    fpr95: float
    fpr95_foreign: float


def quality(familiar: npt.ArrayLike, foreign: npt.ArrayLike) -> Quality:
    """Detection metrics of scores that are higher for what is foreign.

    Parameters
    ----------
    familiar : float array of shape (familiar example,)
        At least one.
    foreign : float array of shape (foreign example,)
        At least one.

    Returns
    -------
    Quality

    Notes
    -----
    Both false-positive rates are in use under one name: pytorch-ood and Yang et al. 2022 (OpenOOD) take the foreign as
    positive, Hendrycks and Gimpel 2017 and their followers the familiar. The threshold is a score that occurs, the
    strictest at which at least 95 % of the positives are on their side.

    Examples
    --------
    >>> quality([0, 1, 2, 3], [2.5, 4, 5, 6]).auroc
    0.9375
    """
    from sklearn.metrics import average_precision_score, roc_auc_score

    inside, outside = np.asarray(familiar, np.float64), np.asarray(foreign, np.float64)
    scores = np.concatenate([inside, outside])
    truth = np.repeat([0, 1], [len(inside), len(outside)])
    return Quality(
        auroc=float(roc_auc_score(truth, scores)),
        aupr_familiar=float(average_precision_score(1 - truth, -scores)),
        aupr_foreign=float(average_precision_score(truth, scores)),
        fpr95=float((outside <= np.quantile(inside, 0.95, method="inverted_cdf")).mean()),
        fpr95_foreign=float((-inside <= np.quantile(-outside, 0.95, method="inverted_cdf")).mean()),
    )


def mean_quality(found: Sequence[Quality]) -> Quality:
    """Plain mean over foreign sets, each counting the same.

    Parameters
    ----------
    found : sequence of Quality
        At least one.
    """
    rows = [asdict(one) for one in found]
    return Quality(**{key: float(np.mean([row[key] for row in rows])) for key in rows[0]})
