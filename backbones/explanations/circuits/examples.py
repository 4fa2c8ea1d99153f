"""Dataset examples: whether what excites a unit in some images tells what excites it in others."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.stats import rankdata
from torch import Tensor

from backbones.explanations.circuits.nulls import Result, against

Encoder = Callable[[Tensor], Tensor]
"""From patches (sample, ...) to features (sample, feature) that owe nothing to the network under test."""

_SHARE = 25
_FEWEST = 8


def contrast(patches: Float[Tensor, "sample ..."]) -> Float[Tensor, "sample feature"]:
    """Patches as unit vectors: what they look like, whatever their contrast; flat ones stay 0.

    Parameters
    ----------
    patches : float tensor of shape (sample, ...)
        Deviations from the mean input.
    """
    rows = patches.flatten(1).float()
    unit: Tensor = rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-12)
    return unit


def auroc(above: Float[np.ndarray, " a"], below: Float[np.ndarray, " b"]) -> float:
    """Share of pairs in which the first is the larger, ties counted half."""
    ranks = rankdata(np.concatenate([above, below]))
    n, m = len(above), len(below)
    return float((ranks[:n].sum() - n * (n + 1) / 2) / (n * m))


def spectrum(values: Float[Tensor, " sample"], count: int) -> Int[Tensor, " chosen"]:
    """Inputs along all that a unit says, from the most to the least, and not the top alone.

    Parameters
    ----------
    values : float tensor of shape (sample,)
        What the unit says to each input.
    count : int
        How many to choose (>= 2); fewer where there are fewer inputs.

    Examples
    --------
    >>> spectrum(torch.tensor([0.0, 5.0, 1.0, 2.0, 3.0]), 3).tolist()
    [1, 3, 0]
    """
    order = values.argsort(descending=True, stable=True)
    return order.index_select(0, torch.linspace(0, len(order) - 1, min(count, len(order))).round().long())


def dataset_examples(
    values: Float[Tensor, " sample"],
    patches: Float[Tensor, "sample ..."],
    *,
    encoder: Encoder = contrast,
    permutations: int = 199,
    seed: int = 0,
) -> Result:
    """Whether the top and bottom examples of one half of the images tell top from bottom in the other half.

    Parameters
    ----------
    values : float tensor of shape (sample,)
        What the unit says to each image.
    patches : float tensor of shape (sample, ...)
        What it looked at, as deviations from the mean input.
    encoder : callable, default `contrast`
        Features in which patches are compared.
    permutations : int, default 199
        Draws of the null, in which values are shuffled among the images (count, >= 1).
    seed : int, default 0
        Of the halves and shuffles.

    Returns
    -------
    Result
        The statistic is the share of pairs (top, bottom) of the second half that are told apart by how much nearer
        they are to the first half's top than to its bottom examples: 0.5 by guessing, 1 at best.

    Raises
    ------
    ValueError
        If the unit says the same to all images, or there are fewer than 32.

    Notes
    -----
    After the machine interpretability score of R. Zimmermann et al., "Measuring mechanistic interpretability at scale
    without humans", 2024, with pixels in the place of a learned similarity. Top and bottom are the 4 % at either end
    of a half, and at least 8.
    """
    if len(values) < 4 * _FEWEST or bool((values == values[0]).all()):
        raise ValueError(
            f"`values` must be those of {4 * _FEWEST} or more images and differ, got {len(values)} of "
            f"{len(values.unique())} kinds. A dead unit has no examples."
        )
    generator = np.random.default_rng(seed)
    features = encoder(patches).double()
    said = values.double().cpu().numpy()
    count = max(_FEWEST, len(said) // (2 * _SHARE))
    alike = (features @ features.T).cpu().numpy()
    order = generator.permutation(len(said))
    halves = order[::2], order[1::2]

    def told(said: Float[np.ndarray, " sample"]) -> float:
        ranked = [half[np.argsort(-said[half], kind="stable")] for half in halves]
        (top, bottom), (high, low) = ((it[:count], it[-count:]) for it in ranked)
        nearer = alike[:, top].mean(1) - alike[:, bottom].mean(1)
        return auroc(nearer[high], nearer[low])

    return against(told(said), [told(generator.permutation(said)) for _ in range(permutations)])
