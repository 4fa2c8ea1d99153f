"""Circuit diagrams: a unit, the few earlier units that make it, what those are made of, and all of them in pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from backbones.base import evaluating
from backbones.checks import check_count
from backbones.explanations.circuits.stimuli import standard
from backbones.explanations.circuits.units import Recording, Unit, find_layer, outputs, record
from backbones.explanations.circuits.weights import Edges, called_layers, edges_of, weighted
from backbones.explanations.pullbacks import pullback

_EXAMPLES = 8


@dataclass(frozen=True)
class Node:
    """A unit of the diagram.

    Parameters
    ----------
    unit : Unit
        Which.
    template : float array of shape (channel, height, width)
        The unit in pixels: its gradient at its top examples, where it looked, on average.
    faithful : float or None
        Correlation of what the edges of the diagram add up to with the unit, on images that did not choose them; None
        for a unit without edges in the diagram.
    """

    unit: Unit
    template: Float[np.ndarray, "channel height width"]
    faithful: float | None


@dataclass(frozen=True)
class DiagramEdge:
    """An earlier unit and its weights in a later one.

    Parameters
    ----------
    source, target : Unit
        From the earlier to the later one.
    kernel : float array of shape (height, width)
        Its weights: a kernel, or a map over the places of the source.
    share : float
        Of the target's variance, by covariance; negative where the edge works against the rest.
    """

    source: Unit
    target: Unit
    kernel: Float[np.ndarray, "height width"]
    share: float


@dataclass(frozen=True)
class Diagram:
    """A circuit, unrolled.

    Parameters
    ----------
    levels : tuple of tuple of Node
        The unit itself, then what it is made of, and so on.
    edges : tuple of DiagramEdge
        Between neighbouring levels.
    """

    levels: tuple[tuple[Node, ...], ...]
    edges: tuple[DiagramEdge, ...]


def diagram(
    model: nn.Module,
    unit: Unit,
    x: Float[Tensor, "sample channel height width"],
    *,
    widths: tuple[int, ...] = (4, 2),
    seed: int = 0,
) -> Diagram:
    """Draw a unit of a convolution or linear layer as a circuit of earlier units.

    Parameters
    ----------
    model : nn.Module
        Any network on images; run in evaluation mode.
    unit : Unit
        Where to begin.
    x : float tensor of shape (sample, channel, height, width)
        Natural images, at least 8.
    widths : tuple of int, default (4, 2)
        Edges kept at each unit of each level (counts, >= 1).
    seed : int, default 0
        Of the places at which edges are measured.

    Returns
    -------
    Diagram
        It ends early where a layer looks at the picture itself, or at units that no earlier layer has.

    Raises
    ------
    ValueError
        If the unit's layer is no convolution or linear layer, or ``x`` are no images.

    Notes
    -----
    A source is the channel of the last earlier convolution or linear layer with as many units as the layer takes
    channels: normalisations, ReLU and pooling between them keep channels apart. Edges are chosen on one half of the
    images, and `Node.faithful` is measured on the other.
    """
    for width in widths:
        check_count("widths", width)
    weighted(model, unit.layer)
    if x.ndim != 4:
        raise ValueError(f"`x` must be images, got shape {tuple(x.shape)}. A circuit of rows has no pixels.")
    called = called_layers(model, x)
    recordings: dict[str, Recording] = {}
    edges: list[DiagramEdge] = []
    levels: list[tuple[Node, ...]] = []
    here = [unit]
    for level in range(len(widths) + 1):
        nodes, after = [], []
        for it in here:
            if it.layer not in recordings:
                recordings[it.layer] = record(model, it.layer, x, seed=seed)
            before = _before(model, it.layer, called) if level < len(widths) else None
            faithful = None
            if before is not None:
                found, faithful = _strongest(
                    model, it, before, edges_of(model, it, x, recordings[it.layer].at), widths[level]
                )
                edges += found
                after += [edge.source for edge in found if edge.source not in after]
            nodes.append(Node(it, unrolled(model, it, x, recordings[it.layer]), faithful))
        levels.append(tuple(nodes))
        here = after
        if not here:
            break
    return Diagram(tuple(levels), tuple(edges))


def unrolled(
    model: nn.Module, unit: Unit, x: Float[Tensor, "sample channel height width"], recording: Recording
) -> Float[np.ndarray, "channel height width"]:
    """A unit in pixels: the mean of its gradients at its top examples, each cut out where it looked.

    Parameters
    ----------
    model, unit, x
        See `diagram`.
    recording : Recording
        Of the unit's layer, for ``x``.

    Notes
    -----
    Gradients pass through soft gates (`backbones.pullback`). For a unit of a first layer it is the kernel itself.
    """
    top = recording.peaks[:, unit.index].argsort(descending=True, stable=True)[:_EXAMPLES]
    places = recording.places[top, unit.index]
    with evaluating(model), torch.enable_grad(), pullback(model):
        leaf = x[top].detach().clone().requires_grad_()
        maps = outputs(model, unit.layer, leaf)[:, unit.index].flatten(1)
        (found,) = torch.autograd.grad(maps.gather(1, places[:, None]).sum(), leaf)
    template: Float[np.ndarray, "channel height width"] = recording.field.crop(found, places).mean(0).cpu().numpy()
    return template


def _before(model: nn.Module, layer: str, called: list[str]) -> str | None:
    """The layer whose units are the channels that a layer takes; None where it looks at the picture."""
    module = weighted(model, layer)
    if isinstance(module, nn.Conv2d) and module.groups > 1:
        return None
    taken = module.in_channels if isinstance(module, nn.Conv2d) else module.in_features
    for name in reversed(called[: called.index(layer)] if layer in called else []):
        found = find_layer(model, name)
        units = found.out_channels if isinstance(found, nn.Conv2d) else getattr(found, "out_features", 0)
        if units == taken or (isinstance(module, nn.Linear) and isinstance(found, nn.Conv2d) and taken % units == 0):
            return name
    return None


def _strongest(model: nn.Module, unit: Unit, before: str, edges: Edges, width: int) -> tuple[list[DiagramEdge], float]:
    """The edges that explain a unit best, and how well they do together."""
    source_layer = find_layer(model, before)
    n_sources = source_layer.out_channels if isinstance(source_layer, nn.Conv2d) else edges.added.shape[1]
    weight = weighted(model, unit.layer).weight.detach()[unit.index].double().cpu().numpy()
    added = edges.added.double().cpu().numpy().reshape(len(edges.added), n_sources, -1).sum(2)
    kernels = weight.reshape(n_sources, -1) if weight.ndim == 1 else weight
    chosen_on, tested_on = (part - part.mean(0) for part in (added[::2], added[1::2]))
    total = chosen_on.sum(1)
    shares = (chosen_on * total[:, None]).sum(0) / max(float(np.square(total).sum()), 1e-30)
    kept = np.argsort(-shares, kind="stable")[:width]
    both = standard(np.stack([tested_on[:, kept].sum(1), tested_on.sum(1)]))
    found = [DiagramEdge(Unit(before, int(it)), unit, _as_map(kernels[it]), float(shares[it])) for it in kept.tolist()]
    return found, float(both[0] @ both[1])


def _as_map(kernel: Float[np.ndarray, ...]) -> Float[np.ndarray, "height width"]:
    """A kernel as it is, weights on places as a square where they are one, and else as a row."""
    if kernel.ndim == 2:
        return kernel
    side = round(len(kernel) ** 0.5)
    return kernel.reshape(side, side) if side * side == len(kernel) else kernel[None]
