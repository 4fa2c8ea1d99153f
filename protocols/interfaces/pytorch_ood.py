"""Detectors of pytorch-ood: our novelty in its benchmarks, metrics and searches for hyperparameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from slots.errors import MissingExtraError
from slots.model.slot_model import SlotModel
from slots.novelty.detector import NoveltyDetector
from slots.sources.converting import input_array

try:
    from pytorch_ood.api import (
        Detector,
        DetectorInfo,
        FeaturesDetector,
        ModelNotSetException,
        RequiresFittingException,
        Task,
    )
    from pytorch_ood.utils import extract_features, is_known
except ImportError as error:
    raise MissingExtraError(
        f"Detectors for pytorch-ood need the package {error.name or 'pytorch-ood'}. "
        "Install it: pip install 'neural-slots[pytorch-ood]'"
    ) from error

_ANY_RATE = 0.5  # scores do not depend on it, and it asks for one calibration example only


class SlotNoveltyDetector(FeaturesDetector):  # type: ignore[misc]
    """`slots.NoveltyDetector` on the features of an encoder.

    Parameters
    ----------
    encoder : callable or None
        From a batch of inputs to features (batch, feature), as pytorch-ood's other detectors of features take it. None:
        only `fit_features` and `predict_features` are used.
    n_prototypes, false_alarm_rate, seed
        As `slots.NoveltyDetector` takes them.

    Attributes
    ----------
    detector : NoveltyDetector
        ``detector.assess(features)`` gives p-values, decisions and reasons beside the scores.

    Notes
    -----
    Examples with a label below 0, which is pytorch-ood's sign of a foreign one, are left out of the fit. Its convention
    for scores is ours: higher = more novel.

    Examples
    --------
    >>> x = torch.randn(300, 4, generator=torch.Generator().manual_seed(0)) + torch.tensor([9.0, 0, 0, 0])
    >>> detector = SlotNoveltyDetector(None).fit_features(x, torch.zeros(300))
    >>> bool(detector.predict_features(-x).min() > detector.predict_features(x).median())
    True
    """

    requires_fit = True
    info = DetectorInfo(tasks=frozenset({Task.CLASSIFICATION}))
    hyperparameter_space: ClassVar[dict[str, list[Any]]] = {"n_prototypes": [100, 500, 2000]}

    def __init__(
        self,
        encoder: Callable[[Tensor], Tensor] | None,
        *,
        n_prototypes: int = 500,
        false_alarm_rate: float = 0.05,
        seed: int = 0,
    ) -> None:
        self.encoder = encoder
        self.n_prototypes, self.false_alarm_rate, self.seed = n_prototypes, false_alarm_rate, seed
        self.detector: NoveltyDetector | None = None

    def fit(self, data_loader: Any) -> Self:
        """Learn from familiar inputs.

        Parameters
        ----------
        data_loader : DataLoader
            Batches of inputs and labels.

        Returns
        -------
        SlotNoveltyDetector
            Itself.
        """
        if self.encoder is None:
            raise ModelNotSetException
        features, labels = extract_features(data_loader, self.encoder, self.device or "cpu")
        return self.fit_features(features, labels)

    def fit_features(self, x: Tensor, y: Tensor) -> Self:
        """Learn from familiar features.

        Parameters
        ----------
        x : float tensor of shape (example, feature)
            Not scaled to unit length; at least 10 that are familiar.
        y : tensor of shape (example,)
            Labels; below 0 for foreign examples, which are left out.

        Returns
        -------
        SlotNoveltyDetector
            Itself.
        """
        known = is_known(y)
        classes = y[known]
        detector = NoveltyDetector(self.n_prototypes, false_alarm_rate=self.false_alarm_rate, seed=self.seed)
        labels = classes if len(classes.unique()) > 1 else None  # one class says no more than none
        self.detector = detector.fit(x[known].detach(), labels)
        return self

    def predict(self, x: Tensor) -> Tensor:
        """Scores of inputs, float64 of shape (batch,): higher = more novel."""
        if self.encoder is None:
            raise ModelNotSetException
        device = self.device
        return self.predict_features(self.encoder(x if device is None else x.to(device)))

    def predict_features(self, x: Tensor) -> Tensor:
        """Scores of features of shape (batch, feature), float64 of shape (batch,): higher = more novel."""
        if self.detector is None:
            raise RequiresFittingException
        return torch.from_numpy(self.detector.predict(x.detach())).to(x.device)


class SlotModelDetector(Detector):  # type: ignore[misc]
    """A fitted `slots.SlotModel` with its own novelty, on raw inputs; there is nothing to fit.

    Parameters
    ----------
    model : SlotModel
        With a calibration of novelty, as every fit on enough examples leaves one.

    Notes
    -----
    Images come as a benchmark's ``ToTensor`` gives them, in [0, 1] and without ``Normalize``, in the model's size.
    """

    info = DetectorInfo(tasks=frozenset({Task.CLASSIFICATION}))

    def __init__(self, model: SlotModel) -> None:
        self.model = model

    def predict(self, x: Tensor) -> Tensor:
        """Scores of inputs, float64 of shape (batch,): higher = more novel.

        Parameters
        ----------
        x : tensor of shape (batch, channel, height, width) or (batch, feature)
            A batch.

        Raises
        ------
        DataError
            If it is not what the model was fitted on.
        UsageError
            If the model has no calibration.
        """
        scores = self.model.assess_novelty(input_array(x, None), false_alarm_rate=_ANY_RATE).scores
        return torch.from_numpy(scores).to(x.device)
