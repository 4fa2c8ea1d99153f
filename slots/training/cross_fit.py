"""Evidence from examples that trained nothing, where few can be spared: fits that each leave some of them out."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from slots.closing.caps import Reference
from slots.closing.closing_pass import add_missing, set_caps
from slots.closing.evidence import Evidence, ask
from slots.closing.rarity import allow_for_rare
from slots.features.featurizer import Featurizer
from slots.features.preprocessing import Preprocessing
from slots.features.source import FeatureSource
from slots.features.views import parse_views
from slots.features.whitening import ClassSums, Whitening
from slots.head.similarities import normalize
from slots.novelty.left_out.measures import CrossMeasures, measure_left_out
from slots.progress import Progress, silent
from slots.training.config import TrainConfig
from slots.training.fixed_features import first_slots, train_fixed

ENOUGH = 2000
"""Examples asked beyond which more change the calibrated angle little."""

_FOLDS = 5
_SOME_FOLDS = 3  # in which novelty is measured at least
_MEASURED = 500  # examples beyond which more folds make its calibration little steadier


@dataclass(frozen=True)
class CrossFit:
    """What other fits, made in the same way, say of examples that they were not made from.

    The slots of the fit itself know more examples than these, so that it is, if anything, too careful.

    Parameters
    ----------
    evidence : Evidence
        Which slots match the examples, for `slots.closing.vouching.calibrate`.
    measures : CrossMeasures or None
        How novel they are, for `slots.novelty.left_out.measures.learn_from_left_out`; None where that was not asked, or
        of too few examples.
    """

    evidence: Evidence
    measures: CrossMeasures | None


def cross_fit(
    rows: Tensor,
    labels: npt.NDArray[np.int64],
    config: TrainConfig,
    *,
    novelty: bool = False,
    progress: Progress | None = None,
) -> CrossFit:
    """What slots made in the same way answer to examples that they were not made from.

    Parameters
    ----------
    rows : float tensor of shape (example, feature)
        Features as the backbone gives them, of all examples.
    labels : int64 array of shape (example,)
        Labels, >= 0.
    config : TrainConfig
        That of the fit: whitening, training and closing are repeated without the examples of a fold, fold after fold
        until enough were asked.
    novelty : bool, default False
        Whether to measure how novel the same examples are.
    progress : callable, optional
        Told the progress.

    Returns
    -------
    CrossFit

    Notes
    -----
    Cross-validation instead of a split, as cross-conformal prediction has it (Vovk 2015), since a split of a hundred
    examples can show no level at all.
    """
    tell = progress or silent
    order = np.random.default_rng([config.seed, 7]).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    fold = np.empty(len(labels), np.int64)
    fold[order] = np.arange(len(labels)) % _FOLDS  # next to even in each class
    parts: list[Evidence] = []
    measured: list[CrossMeasures] = []
    for k in range(_FOLDS):
        tell(f"asking examples that were left out, {k + 1}/{_FOLDS}", k / _FOLDS)
        fitted, left = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
        if len(fitted) == 0 or len(left) == 0:
            continue
        measures = novelty and (k < _SOME_FOLDS or sum(len(part.values) for part in measured) < _MEASURED)
        asked, found = _ask_fold(rows, labels, fitted, left, config, number=k if measures else None)
        parts.append(asked)
        measured += [] if found is None else [found]
        if sum(part.n for part in parts) >= ENOUGH:
            break
    return CrossFit(Evidence.joined(parts), CrossMeasures.joined(measured))


def _ask_fold(
    rows: Tensor,
    labels: npt.NDArray[np.int64],
    fitted: npt.NDArray[np.int64],
    left: npt.NDArray[np.int64],
    config: TrainConfig,
    *,
    number: int | None,
) -> tuple[Evidence, CrossMeasures | None]:
    """Fit without some examples and ask about them; classes that are gone with them cannot be asked about.

    How novel they are is measured where the fold has a number.
    """
    targets = torch.from_numpy(labels).to(rows.device)
    here = torch.from_numpy(fitted)
    whitening = None
    if config.whitening is not None:
        sums = ClassSums.of(rows[here], targets[here])
        whitening = Whitening.of(sums, shrinkage=config.whitening, by=config.whitening_by, lift=config.lift)
        whitening = whitening.to(rows.device)
    featurizer = Featurizer(
        Preprocessing("features", (rows.shape[1],)),
        parse_views("none"),
        nn.Identity(),
        feature_dim=rows.shape[1] if whitening is None else whitening.width,
        whitening=whitening,
        device=rows.device,
    )
    source = FeatureSource(featurizer, rows.cpu().numpy())
    unit = normalize(source(fitted)[:, 0].float())
    start = first_slots(unit, targets[here], per_class=max(1, config.slots_per_class), seed=config.seed)
    if len(start.classes) == 0:
        return Evidence.none(), None
    head = train_fixed(unit, targets[here], start, config).head(config)
    data = Reference(head, source, targets, silent)
    drawn = set_caps(data, fitted, left, replace(config.closing, mode="compact"))
    measures = None  # before examples become slots
    if number is not None:
        measures = measure_left_out(source, head, labels, fitted=fitted, left=left, number=number)
    add_missing(data, labels, fitted, drawn, replace(config.closing, mode="compact"))
    allow_for_rare(data, fitted)
    asked = left[np.isin(labels[left], labels[fitted])]
    return ask(source, head, labels, asked), measures
