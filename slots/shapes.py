"""The axis vocabulary, and the tensor types that speak it.

Axes are whole words everywhere: ``example`` (a row of a data set or batch), ``view`` (one augmented copy of an
input), ``slot``, ``candidate`` (a slot not yet chosen), ``feature``, ``label``, ``channel``, ``height``, ``width``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from jaxtyping import Bool, Float, Int
from torch import Tensor

Ids = npt.NDArray[np.int64]
"""Numbers of examples or slots, or ids of labels."""

RawInputs = npt.NDArray[Any] | Tensor
"""uint8 images, float feature rows or an array of strings, as a user holds them."""

Features = Float[Tensor, "example feature"]
"""Raw features, one row an example."""

FeatureRows = npt.NDArray[Any] | Features
"""The same as a user may hold them."""

ViewFeatures = Float[Tensor, "example view feature"]
"""Raw features of each view of each example."""

SlotVectors = Float[Tensor, "slot feature"]
"""Unit vectors, one row a slot."""

Similarities = Float[Tensor, "example slot"]
"""Cosine (in [-1, 1]) or negative squared distance (<= 0) of each example to each slot."""

Thresholds = Float[Tensor, " slot"]
"""One threshold a slot, on the scale of its similarities."""

Labels = Int[Tensor, " example"]
SlotLabels = Int[Tensor, " slot"]
Covers = Bool[Tensor, "candidate example"]
