"""Units of any network by name, what they say to inputs, and which part of an input they look at."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from backbones.base import evaluating
from backbones.checks import check_inputs
from backbones.explanations.pullbacks import pullback

Span: TypeAlias = tuple[int, int]
Spans: TypeAlias = list[Span | None]
BATCH: Final = 128
_NAMED: Final = 12


@dataclass(frozen=True)
class Unit:
    """One unit of a layer.

    Parameters
    ----------
    layer : str
        Name of the module in ``model.named_modules()``.
    index : int
        Channel or feature of its output (>= 0).

    Examples
    --------
    >>> Unit.parse("layers.0:3")
    Unit(layer='layers.0', index=3)
    >>> str(Unit("layers.0", 3))
    'layers.0:3'
    """

    layer: str
    index: int

    def __str__(self) -> str:
        return f"{self.layer}:{self.index}"

    @staticmethod
    def parse(text: str) -> Unit:
        """The unit of a text ``layer:index``.

        Raises
        ------
        ValueError
            If it is anything else.
        """
        layer, colon, index = text.rpartition(":")
        if not colon or not layer or not index.isdecimal():
            raise ValueError(f"A unit must be named LAYER:INDEX, got {text!r}. An example is layers.0:3.")
        return Unit(layer, int(index))


@dataclass(frozen=True)
class Field:
    """Which part of an input each place of a layer looks at.

    Parameters
    ----------
    tops, lefts : tuple of int
        First row for each row of places, and first column for each column (pixels, may be below 0 at the border).
    height, width : int
        Of what one place sees (pixels). Both are 0 where inputs are no images.
    """

    tops: tuple[int, ...]
    lefts: tuple[int, ...]
    height: int
    width: int

    def crop(self, x: Float[Tensor, "sample ..."], places: Int[Tensor, " sample"]) -> Float[Tensor, "sample ..."]:
        """The part of each input that its place sees; 0 beyond the border, and whole inputs that are no images.

        Parameters
        ----------
        x : float tensor of shape (sample, channel, height, width) or (sample, feature)
            Inputs.
        places : int64 tensor of shape (sample,)
            Place in the flattened grid of the layer; 0 for a layer without places.
        """
        if not self.height:
            return x
        pad = max(0, *(-it for it in (*self.tops, *self.lefts)), self.tops[-1] + self.height - x.shape[2])
        pad = max(pad, self.lefts[-1] + self.width - x.shape[3])
        padded = nn.functional.pad(x, (pad, pad, pad, pad))
        parts = []
        for picture, place in zip(padded, places.tolist(), strict=True):
            row, column = divmod(place, len(self.lefts))
            top, left = self.tops[row] + pad, self.lefts[column] + pad
            parts.append(picture[:, top : top + self.height, left : left + self.width])
        return torch.stack(parts) if parts else x[:, :, : self.height, : self.width]


@dataclass(frozen=True)
class Recording:
    """What all units of a layer say to some inputs.

    Parameters
    ----------
    layer : str
        Its name.
    peaks : float tensor of shape (sample, unit)
        Largest value over all places.
    places : int64 tensor of shape (sample, unit)
        Where that is, in the flattened grid; 0 without places.
    sampled : float tensor of shape (sample, unit)
        Value at one place of each input, drawn at random and the same for all units.
    at : int64 tensor of shape (sample,)
        That place.
    grid : tuple of int
        Rows and columns of places; (1, 1) without.
    field : Field
        What a place sees.
    """

    layer: str
    peaks: Float[Tensor, "sample unit"]
    places: Int[Tensor, "sample unit"]
    sampled: Float[Tensor, "sample unit"]
    at: Int[Tensor, " sample"]
    grid: tuple[int, int]
    field: Field

    @property
    def n_units(self) -> int:
        """Units of the layer."""
        return self.peaks.shape[1]


def find_layer(model: nn.Module, name: str) -> nn.Module:
    """The module of that name.

    Raises
    ------
    ValueError
        If there is none.
    """
    named: dict[str, nn.Module] = dict(model.named_modules())
    if name not in named or not name:
        shown = [it for it, module in named.items() if it and not list(module.children())]
        more = ", ..." if len(shown) > _NAMED else ""
        raise ValueError(
            f"`layer` must be a module of the network, got {name!r}. It has {', '.join(shown[:_NAMED])}{more}."
        )
    return named[name]


class _HeardError(Exception):
    """Ends a forward pass at the layer that was asked for."""


@contextmanager
def listening(module: nn.Module, hear: Callable[[tuple[Any, ...], Tensor], Tensor | None]) -> Iterator[None]:
    """Within the block ``hear(inputs, output)`` is called after each call of the module; what it returns replaces it.

    Parameters
    ----------
    module : nn.Module
        To listen to.
    hear : callable
        Gets the positional inputs and the output.
    """
    handle = module.register_forward_hook(lambda _, inputs, output: hear(inputs, output))
    try:
        yield
    finally:
        handle.remove()


def outputs(model: nn.Module, layer: str, x: Float[Tensor, "sample ..."]) -> Float[Tensor, "sample unit row column"]:
    """Output of a layer for one batch, with places as two last axes; gradients as the caller set them.

    Parameters
    ----------
    model : nn.Module
        Called as ``model(x)``, in the mode it is in, and left where the layer has answered.
    layer : str
        Name of one of its modules; its first call counts.
    x : float tensor of shape (sample, ...)
        Inputs.

    Raises
    ------
    ValueError
        If the layer is not called, or does not give (sample, unit) or (sample, unit, row, column).
    """
    heard: list[Tensor] = []

    def stop(_: tuple[Any, ...], output: Tensor) -> None:
        heard.append(output)
        raise _HeardError  # what comes after the layer need not be computed

    with listening(find_layer(model, layer), stop), suppress(_HeardError):
        model(x)
    shape = tuple(heard[-1].shape) if heard and isinstance(heard[-1], Tensor) else None
    if shape is None or len(shape) not in {2, 4} or shape[0] != len(x):
        raise ValueError(
            f"`layer` must give (sample, unit) or (sample, unit, row, column), got {shape} from {layer!r}. "
            "Name another layer."
        )
    return heard[-1] if len(shape) == 4 else heard[-1][:, :, None, None]


def record(model: nn.Module, layer: str, x: Float[Tensor, "sample ..."], *, seed: int = 0) -> Recording:
    """What all units of a layer say to inputs.

    Parameters
    ----------
    model : nn.Module
        Any network; run in evaluation mode, its mode stays as it was.
    layer : str
        Name of one of its modules.
    x : float tensor of shape (sample, channel, height, width) or (sample, feature)
        Inputs, at least one.
    seed : int, default 0
        Of the places drawn.

    Returns
    -------
    Recording

    Raises
    ------
    ValueError
        If there is no such layer, or it does not give maps or features, or there is no input.

    Examples
    --------
    >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU())
    >>> found = record(net, "0", torch.rand(5, 1, 8, 8))
    >>> tuple(found.peaks.shape), found.grid, (found.field.height, found.field.tops)
    ((5, 4), (6, 6), (3, (0, 1, 2, 3, 4, 5)))
    """
    check_inputs(x)
    generator = torch.Generator().manual_seed(seed)
    parts = []
    with evaluating(model), torch.no_grad():
        for part in x.split(BATCH):
            maps = outputs(model, layer, part)
            grid = (maps.shape[2], maps.shape[3])
            flat = maps.flatten(2)
            peaks, places = flat.max(2)
            at = torch.randint(flat.shape[2], (len(part),), generator=generator).to(flat.device)
            sampled = flat.gather(2, at[:, None, None].expand(-1, flat.shape[1], 1)).squeeze(2)
            parts.append((peaks, places, sampled, at))
    peaks, places, sampled, at = (torch.cat(it) for it in zip(*parts, strict=True))
    return Recording(layer, peaks, places, sampled, at, grid, field_of(model, layer, x[:1], grid))


def field_of(model: nn.Module, layer: str, x: Float[Tensor, "one ..."], grid: tuple[int, int]) -> Field:
    """What each place of a layer sees, measured by gradients through soft gates, which close nowhere.

    Parameters
    ----------
    model, layer
        See `record`.
    x : float tensor of shape (1, ...)
        An input of the right shape; its values do not matter.
    grid : (row, column)
        Places of the layer.
    """
    if x.ndim != 4:
        return Field((0,), (0,), 0, 0)
    rows, columns = _spans(model, layer, x, grid)
    if _all_are_cut(rows, x.shape[2]) or _all_are_cut(columns, x.shape[3]):
        rows, columns = _spans_beyond(model, layer, x, grid, (rows, columns))
    (tops, height), (lefts, width) = _starts(rows), _starts(columns)
    return Field(tops, lefts, height, width)


def _spans(model: nn.Module, layer: str, x: Float[Tensor, "one ..."], grid: tuple[int, int]) -> tuple[Spans, Spans]:
    """Which rows each row of places sees, and which columns each column."""
    middle = (grid[0] // 2, grid[1] // 2)
    asked = [(row, middle[1]) for row in range(grid[0])] + [(middle[0], column) for column in range(grid[1])]
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).to(x)
    seen = torch.cat([_seen(model, layer, noise, asked[at : at + BATCH]) for at in range(0, len(asked), BATCH)])
    return [_span(it.any(1)) for it in seen[: grid[0]]], [_span(it.any(0)) for it in seen[grid[0] :]]


def _all_are_cut(spans: Spans, side: int) -> bool:
    """Whether the border cuts all fields off, though none sees the whole side: how large they are is not seen then."""
    found = [it for it in spans if it is not None]
    return all(start == 0 or end == side for start, end in found) and (0, side) not in found


def _spans_beyond(
    model: nn.Module, layer: str, x: Float[Tensor, "one ..."], grid: tuple[int, int], spans: tuple[Spans, Spans]
) -> tuple[Spans, Spans]:
    """The same places on an input with as much again below and to the right, where a network takes one.

    The spans as they were where it does not, or where its places then see something else.
    """
    height, width = x.shape[2:]
    try:
        found = _spans(model, layer, x.new_zeros(*x.shape[:2], 2 * height, 2 * width), grid)
    except Exception:  # noqa: BLE001  # whatever a network says to inputs of another size
        return spans
    return found if (_within(found[0], height), _within(found[1], width)) == spans else spans


def _within(spans: Spans, side: int) -> Spans:
    return [it and (it[0], min(it[1], side)) for it in spans]


def _seen(
    model: nn.Module, layer: str, noise: Tensor, asked: list[tuple[int, int]]
) -> Float[Tensor, "asked height width"]:
    """Whether each pixel changes what is said at a place."""
    with evaluating(model), torch.enable_grad(), pullback(model):
        leaf = noise.repeat(len(asked), 1, 1, 1).requires_grad_()
        maps = outputs(model, layer, leaf)
        weights = torch.linspace(0.5, 1.5, maps.shape[1], device=maps.device)  # equal ones might cancel
        total = torch.stack([(maps[i, :, r, c] * weights).sum() for i, (r, c) in enumerate(asked)]).sum()
        (found,) = torch.autograd.grad(total, leaf)
    return found.abs().sum(1) > 0


def _span(seen: Tensor) -> Span | None:
    """First, and one past the last; None for a place that sees the padding alone."""
    found = seen.nonzero().flatten()
    return (int(found[0]), int(found[-1]) + 1) if len(found) else None


def _starts(spans: Spans) -> tuple[tuple[int, ...], int]:
    """Where fields of one size begin, in equal steps; those that the border cuts off begin beyond it."""
    seen = {at: span for at, span in enumerate(spans) if span is not None}
    if not seen:
        raise ValueError("`layer` must depend on the input, got one that does not. Name another layer.")
    size = max(end - start for start, end in seen.values())
    whole = [at for at, (start, end) in seen.items() if end - start == size]
    first, last = whole[0], whole[-1]
    begin = seen[first][0]
    if last > first:
        step = (seen[last][0] - begin) // (last - first)
    else:  # the neighbours are cut off, each at one end
        cut = [(seen[at][1] - seen[first][1]) // (at - first) for at in seen if at < first]
        cut += [(seen[at][0] - begin) // (at - first) for at in seen if at > first]
        step = max(cut, default=size)
    return tuple(begin + (at - first) * step for at in range(len(spans))), size


def shuffled(model: nn.Module, *, seed: int = 0) -> nn.Module:
    """A copy whose convolutions and linear layers have the weights of each unit in another order.

    A control for measurements: each unit keeps its bias and the sizes of its weights, and nothing it has learned.

    Parameters
    ----------
    model : nn.Module
        Stays as it is.
    seed : int, default 0
        Of the shuffles.

    Returns
    -------
    nn.Module

    Examples
    --------
    >>> linear = nn.Linear(3, 2)
    >>> other = shuffled(linear)
    >>> bool((other.weight.sort(1).values == linear.weight.sort(1).values).all())
    True
    """
    generator = torch.Generator().manual_seed(seed)
    other = copy.deepcopy(model)
    with torch.no_grad():
        for module in other.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                rows = module.weight.flatten(1)
                order = torch.rand(rows.shape, generator=generator).argsort(1).to(rows.device)
                module.weight.copy_(rows.gather(1, order).view_as(module.weight))
    return other
