"""`SlotEncoder`: images, sentences or rows as unit features, for the pipelines of scikit-learn."""
# ruff: noqa: N803 - scikit-learn calls it X

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import nn

from protocols.interfaces.frozen_backbones import FrozenBackbone, Taken
from protocols.interfaces.pictures import Pictures, is_picture
from protocols.recipes.building import pick_device
from slots.arrays import on_host
from slots.errors import UsageError
from slots.features.preprocessing import Kind, Preprocessing, raw_inputs
from slots.features.source import FeatureSource, unit_features
from slots.sources.converting import input_array

UnitRows = npt.NDArray[np.float32]
_KINDS: dict[Kind, Taken] = {"features": "rows", "images": "images", "text": "text"}


class SlotEncoder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Transformer from images, sentences or rows of numbers to unit features, by a frozen backbone.

    Parameters
    ----------
    backbone : str or nn.Module, default "auto"
        ``auto``: ``pixels`` for images, none for rows. ``text:NAME``: a sentence encoder on this machine
        (`backbones.TextBackbone`). ``torchvision:NAME``, ``timm:NAME``, ``cifar_resnetN``: with ``weights``.
        ``explor`` and others that come with trained weights: with ``weights="cifar10"``. A model folder: backbone and
        whitening of that model, so what its slots see. A module of your own: from (batch, channel, height, width), in
        [0, 1], to (batch, feature).
    weights : str, optional
        A file, or ``default`` for the library's own, which it may have to download (`backbones.build`). Default: none.
    options : mapping, optional
        Further options of the backbone. Default: none.
    device : str, default "cpu"
        ``auto`` takes the first GPU where there is one.

    Attributes
    ----------
    featurizer_ : Featurizer
        From checked inputs to features.
    n_features_out_ : int
        Length of a feature vector.
    n_features_in_ : int
        Length of a row; only where the inputs are rows.

    Notes
    -----
    `fit` learns nothing from the inputs but their form, so the same features come out of every fold. To compute them
    once for all folds, give the pipeline a cache: ``make_pipeline(..., memory="cache")``. Pictures in lists are read
    64 at a time, for a network of others as its publishers read them.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.model_selection import cross_val_score
    >>> from sklearn.pipeline import make_pipeline
    >>> digits = load_digits()
    >>> images = (digits.images[:500] * 15).astype(np.uint8)
    >>> pipeline = make_pipeline(SlotEncoder("pixels"), LogisticRegression(C=10))
    >>> bool(cross_val_score(pipeline, images, digits.target[:500], cv=3).mean() > 0.9)
    True
    """

    def __init__(
        self,
        backbone: str | nn.Module = "auto",
        *,
        weights: str | None = None,
        options: Mapping[str, Any] | None = None,
        device: str = "cpu",
    ) -> None:
        self.backbone = backbone
        self.weights = weights
        self.options = options
        self.device = device

    def fit(self, X: Any, y: object = None) -> Self:  # noqa: ARG002
        """Build the backbone for inputs of this form.

        Parameters
        ----------
        X : array-like
            uint8 images of shape (example, height, width[, channel]); a list of paths or of PIL images; a list of
            sentences; rows of numbers of shape (example, feature); or a data set of one of these
            (`slots.sources.read_source`).
        y : ignored
            There for scikit-learn's pipelines.

        Returns
        -------
        SlotEncoder
            Itself.

        Raises
        ------
        UsageError
            If the backbone is unknown, lacks its weights, or is not for such inputs.
        DataError
            If the inputs are not of one form.
        """
        frozen, device = self._frozen(), pick_device(self.device)
        known = frozen.of_model(device)
        x = self._read(X, frozen.takes if known is None else _KINDS[known.preprocessing.kind], reset=True)
        if known is None:
            form = Preprocessing("images", x.form()) if isinstance(x, Pictures) else Preprocessing.of(x)
            known = frozen.featurizer(form, device)
        if not isinstance(x, Pictures):
            known.preprocessing.check(x)
        self.featurizer_ = known
        self.n_features_out_ = self._n_features_out = known.feature_dim
        return self

    def transform(self, X: Any) -> UnitRows:
        """Unit features of inputs.

        Parameters
        ----------
        X : array-like
            Of the kind that it was fitted on.

        Returns
        -------
        float32 array of shape (example, feature)
            Rows of length one; zero where the backbone gives zeros.
        """
        check_is_fitted(self)
        preprocessing = self.featurizer_.preprocessing
        x = self._read(X, _KINDS[preprocessing.kind], reset=False)
        blocks = x.blocks(preprocessing.shape) if isinstance(x, Pictures) else [x]
        return np.concatenate([self._unit(block) for block in blocks])

    def _unit(self, x: Any) -> UnitRows:
        self.featurizer_.preprocessing.check(x)
        return np.asarray(unit_features(FeatureSource(self.featurizer_, x, keep=False)).cpu().numpy())

    def _frozen(self) -> FrozenBackbone:
        return FrozenBackbone(self.backbone, self.weights, dict(self.options or {}))

    def _read(self, X: Any, takes: Taken, *, reset: bool) -> Any:
        """Inputs as an array, or as pictures that are still to be read."""
        if takes == "rows":
            return self._rows(X, reset=reset)
        x = on_host(X.to_numpy() if hasattr(X, "to_numpy") else X)
        if isinstance(x, np.ndarray) and x.ndim == 2 and x.shape[1] == 1 and x.dtype.kind in "OU":
            x = x[:, 0]  # the one column of a data frame
        if takes == "text":
            return raw_inputs(x if isinstance(x, np.ndarray) else list(x))
        if isinstance(x, Sequence) or (isinstance(x, np.ndarray) and x.dtype.kind in "OU" and x.ndim == 1):
            if len(x) and isinstance(x[0], str) and takes == "any":
                raise UsageError("`backbone` must be text:NAME for sentences, pixels or a network for paths. Set it.")
            if len(x) and (is_picture(x[0]) or isinstance(x[0], str)):
                return Pictures(x, *self._frozen().cut())
        array = x if hasattr(x, "ndim") else np.asarray(x)
        if getattr(array, "ndim", 0) in (3, 4):
            return input_array(array, None)
        if takes == "images":
            raise UsageError(
                f"`X` must be uint8 images of shape (example, height, width[, channel]), got {array.dtype} of shape "
                f"{array.shape}. For rows of numbers leave the backbone out."
            )
        return self._rows(X, reset=reset)

    def _rows(self, X: Any, *, reset: bool) -> Any:
        return validate_data(self, on_host(X), dtype=(np.float32, np.float64), reset=reset)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        takes = self._frozen().takes
        tags.input_tags.two_d_array = takes in ("rows", "any")
        tags.input_tags.three_d_array = takes in ("images", "any")
        tags.input_tags.string = takes == "text"
        tags.transformer_tags.preserves_dtype = []
        return tags
