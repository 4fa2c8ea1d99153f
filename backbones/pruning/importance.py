"""How much the loss rises when neurons of a layer are replaced by noise, and the few neurons that carry it all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from backbones.checks import check_choice, check_share
from backbones.pruning.ablation import (
    Batches,
    Statistics,
    find_module,
    hooked,
    left_as_found,
    noise_like,
    randomised,
    running_statistics,
)

CRITERIA: Final = ("sufficiency", "necessity")


@dataclass(frozen=True)
class Score:
    """What a classifier reaches: mean cross-entropy in nats, and accuracy in [0, 1]."""

    loss: float
    accuracy: float


@dataclass(frozen=True)
class Core:
    """The core of a layer: the smallest top of its neurons by importance that carries the accuracy.

    Parameters
    ----------
    neurons : int64 tensor of shape (core,)
        The most informative first.
    accuracy : float
        With none randomised, in [0, 1].
    floor : float
        With all randomised.
    core_accuracy : float
        With all but the core randomised.
    ranking : int64 tensor of shape (neuron,)
        All neurons of the layer in that order.
    """

    neurons: Int[Tensor, " core"]
    accuracy: float
    floor: float
    core_accuracy: float
    ranking: Int[Tensor, " neuron"]


def score(
    model: nn.Module,
    layer: str,
    batches: Batches,
    neurons: Bool[Tensor, " neuron"],
    *,
    statistics: Statistics,
    noise: str = "normal",
    seed: int = 0,
) -> Score:
    """Loss and accuracy of a classifier with some neurons of a layer ablated.

    Parameters
    ----------
    model : nn.Module
        From inputs to logits; used in evaluation and left as found.
    layer, neurons, statistics, noise, seed
        See `backbones.pruning.ablation.randomised`.
    batches : iterable of (x, y)
        Inputs and int64 labels to measure on.

    Returns
    -------
    Score
    """
    loss, right, count = 0.0, 0, 0
    how: dict[str, Any] = {"statistics": statistics, "noise": noise, "seed": seed}
    with left_as_found(model), randomised(model, layer, neurons, **how), torch.no_grad():
        model.eval()
        for x, y in batches:
            logits = model(x)
            loss += functional.cross_entropy(logits, y, reduction="sum").item()
            right += int((logits.argmax(1) == y).sum())
            count += len(y)
    return Score(loss / count, right / count)


def neuron_information(
    model: nn.Module,
    layer: str,
    batches: Batches,
    *,
    groups: Sequence[Sequence[int]] | None = None,
    statistics: Statistics | None = None,
    noise: str = "normal",
    seed: int = 0,
    before: str | None = None,
) -> Float[Tensor, " group"]:
    """Importance of neurons: how much the mean loss rises when they are randomised.

    Parameters
    ----------
    model : nn.Module
        From inputs to logits; used in evaluation and left as found.
    layer : str
        Name of the module whose output has the shape (batch, neuron, ...).
    batches : iterable of (x, y)
        Training data: what the neurons know; held-out data: what of it generalises.
    groups : sequence of sequences of int, optional
        Neurons that are randomised together. Default: each by itself.
    statistics : Statistics, optional
        Default: those of ``batches``.
    noise : {"normal", "permuted"}
        What randomised neurons say; see `backbones.pruning.ablation.noise_like`.
    seed : int
        Every group meets the same noise.
    before : str, optional
        Name of a linear layer that takes this layer's output as it is. A randomised neuron then adds one outer product
        to its output, many neurons at once: for wide layers, single neurons, and a network in which each example is
        treated by itself after that.

    Returns
    -------
    float64 tensor of shape (group,)
        In nats; negative where the noise helped.

    Raises
    ------
    ValueError
        If a group names neurons that are not there, or ``before`` does not do as described.

    Examples
    --------
    >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> data = [(torch.rand(5, 2), torch.zeros(5, dtype=torch.long))]
    >>> neuron_information(net, "1", data, groups=[[0], [1, 2]]).shape
    torch.Size([2])
    """
    known = statistics or running_statistics(model, layer, batches)
    width = len(known.mean)
    if before is not None:
        if groups is not None:
            raise ValueError("`before` must be left out with `groups`, got both. It is for single neurons.")
        return _one_at_a_time(model, layer, before, batches, known=known, noise=noise, seed=seed)
    chosen = [[neuron] for neuron in range(width)] if groups is None else groups
    masks = [_mask(group, width) for group in chosen]
    how: dict[str, Any] = {"statistics": known, "noise": noise, "seed": seed}
    least = score(model, layer, batches, torch.zeros(width, dtype=torch.bool), **how).loss
    risen = [score(model, layer, batches, mask, **how).loss - least for mask in masks]
    return torch.tensor(risen, dtype=torch.float64)


def _mask(group: Sequence[int], width: int) -> Bool[Tensor, " neuron"]:
    mask = torch.zeros(width, dtype=torch.bool)
    if not group or min(group) < 0 or max(group) >= width:
        raise ValueError(
            f"`groups` must hold neurons from 0 to {width - 1}, got {list(group)}. Leave empty groups out."
        )
    mask[list(group)] = True
    return mask


def _one_at_a_time(
    model: nn.Module, layer: str, before: str, batches: Batches, *, known: Statistics, noise: str, seed: int
) -> Float[Tensor, " neuron"]:
    """The same numbers as one pass for each neuron, from a few passes over the part behind the layer."""
    linear = find_module(model, before)
    wrong = ValueError(
        f"`before` must name an nn.Linear fed by the layer's output itself, got {before!r}. Leave it out."
    )
    if not isinstance(linear, nn.Linear):
        raise wrong
    generator = torch.Generator().manual_seed(seed)
    width, total, base, count = len(known.mean), torch.zeros(len(known.mean), dtype=torch.float64), 0.0, 0
    seen: dict[str, Any] = {}

    def keep(output: Tensor) -> Tensor:
        seen["output"] = output
        return output

    def check(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        del module
        if inputs[0] is not seen.get("output"):
            raise wrong

    def shift(neurons: slice, drawn: Tensor) -> Callable[[Tensor], Tensor]:
        gap = (drawn - seen["output"])[:, neurons]
        added = torch.einsum("bn,on->nbo", gap, linear.weight[:, neurons])
        return lambda output: (output + added).flatten(0, 1)

    with left_as_found(model), torch.no_grad():
        model.eval()
        for x, y in batches:
            with hooked(find_module(model, layer), keep):
                handle = linear.register_forward_pre_hook(check)
                try:
                    base += functional.cross_entropy(model(x), y, reduction="sum").item()
                finally:
                    handle.remove()
            count += len(y)
            drawn = noise_like(seen["output"], known, noise, generator)
            step = max(1, 2_000_000 // (len(y) * linear.out_features))
            for start in range(0, width, step):
                neurons = slice(start, min(width, start + step))
                copies = neurons.stop - neurons.start
                with hooked(linear, shift(neurons, drawn)):
                    losses = functional.cross_entropy(model(x), y.repeat(copies), reduction="none")
                total[neurons] += losses.double().view(copies, -1).sum(1).cpu()
    return (total - base) / count


def mutual_information(
    model: nn.Module, layer: str, batches: Batches, i: int, j: int, *, noise: str = "normal", seed: int = 0
) -> float:
    """``info(i, j) - info(i) - info(j)``: what two neurons carry only between them.

    Parameters
    ----------
    model, layer, batches, noise, seed
        See `neuron_information`.
    i, j : int
        Two neurons of the layer.

    Returns
    -------
    float
        In nats. Above 0: each stands in for the other, so that losing both costs more than one and one; below 0: each
        is of use only with the other.

    Raises
    ------
    ValueError
        If they are one neuron, or not there.

    Examples
    --------
    >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> isinstance(mutual_information(net, "1", [(torch.rand(5, 2), torch.zeros(5, dtype=torch.long))], 0, 1), float)
    True
    """
    if i == j:
        raise ValueError(f"`j` must differ from `i`, got {j} twice. Give two neurons.")
    both, first, second = neuron_information(
        model, layer, batches, groups=[[i, j], [i], [j]], noise=noise, seed=seed
    ).tolist()
    return float(both - first - second)


def core_set(
    model: nn.Module,
    layer: str,
    batches: Batches,
    *,
    ranking: Int[Tensor, " neuron"],
    criterion: str = "sufficiency",
    share: float = 0.95,
    statistics: Statistics | None = None,
    noise: str = "normal",
    seed: int = 0,
) -> Core:
    """The smallest top of a ranking that carries the layer, by binary search.

    Parameters
    ----------
    model, layer, batches, statistics, noise, seed
        See `neuron_information`.
    ranking : int64 tensor of shape (neuron,)
        All neurons, the most informative first.
    criterion : {"sufficiency", "necessity"}
        ``"sufficiency"``: with all *other* neurons randomised the accuracy keeps ``share`` of the way from all
        randomised to none. ``"necessity"``: with the *core* randomised it loses that share; that takes nearly all
        neurons of a network that says things twice, and is here for comparison.
    share : float
        In (0, 1].

    Returns
    -------
    Core

    Raises
    ------
    ValueError
        If the ranking does not hold each neuron once.

    Notes
    -----
    The search takes it that accuracy grows with the number of neurons kept; where it does not, what is found still
    satisfies the criterion, but a smaller set might.

    Examples
    --------
    >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> data = [(torch.rand(5, 2), torch.zeros(5, dtype=torch.long))]
    >>> len(core_set(net, "1", data, ranking=torch.arange(3)).ranking)
    3
    """
    check_choice("criterion", criterion, CRITERIA)
    check_share("share", share)
    known = statistics or running_statistics(model, layer, batches)
    width = len(known.mean)
    if ranking.shape != (width,) or not torch.equal(ranking.sort().values.cpu(), torch.arange(width)):
        raise ValueError(
            f"`ranking` must hold each of the {width} neurons once, got shape {tuple(ranking.shape)}. "
            "Sort the neurons by their information."
        )

    def accuracy(top: int, *, keep: bool) -> float:
        mask = torch.full((width,), keep)
        mask[ranking[:top].cpu()] = not keep
        return score(model, layer, batches, mask, statistics=known, noise=noise, seed=seed).accuracy

    none, every = accuracy(width, keep=True), accuracy(0, keep=True)
    way = none - every

    def enough(top: int) -> bool:
        if criterion == "sufficiency":
            return accuracy(top, keep=True) >= every + share * way
        return accuracy(top, keep=False) <= none - share * way

    low, high = 0, width  # `high` is enough by definition
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return Core(ranking[:high].clone(), none, every, accuracy(high, keep=True), ranking.clone())
