"""Views: small changes of an image that leave its class alone, computed for a whole batch at once.

The first view is always the image itself. Flips and shifts move pixels exactly; rotations and zooms interpolate
(bilinear). What comes in from outside the image is 0.
"""

from __future__ import annotations

import itertools
import math
import re
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from slots.errors import UsageError

Images = Float[Tensor, "example channel height width"]
ImageViews = Float[Tensor, "example view channel height width"]
MAX_VIEWS = 1024
_CHOICES = "none, flip, shiftN, crossN, rotateD, zoomP (N in pixels, D in degrees, P in percent)"
_TERM = re.compile(r"(none|flip)|(shift|cross)(\d{1,3})|(rotate|zoom)(\d{1,3}(?:\.\d+)?)")


@dataclass(frozen=True)
class _Flip:
    """Mirror left and right."""

    def __call__(self, x: Images) -> Images:
        return x.flip(-1)


@dataclass(frozen=True)
class _Shift:
    """Move by whole pixels."""

    down: int
    right: int

    def __call__(self, x: Images) -> Images:
        height, width = x.shape[-2:]
        if abs(self.down) >= height or abs(self.right) >= width:
            raise UsageError(
                f"`x` must be larger than the shifts of its views, got {height} x {width} for a shift of "
                f"{max(abs(self.down), abs(self.right))}. Choose smaller shifts."
            )
        # A negative width of padding cuts: what enters on one side leaves on the other.
        return functional.pad(x, (self.right, -self.right, self.down, -self.down))


@dataclass(frozen=True)
class _Turn:
    """Rotate counter-clockwise and enlarge, about the centre."""

    degrees: float
    zoom: float

    def __call__(self, x: Images) -> Images:
        # Half precision is too coarse for pixel positions.
        fine = x if x.dtype in {torch.float32, torch.float64} else x.float()
        grid = _positions(self.degrees, self.zoom, (int(x.shape[-2]), int(x.shape[-1])), fine.dtype, fine.device)
        turned = functional.grid_sample(
            fine, grid.expand(fine.shape[0], -1, -1, -1), mode="bilinear", padding_mode="zeros", align_corners=False
        )
        return turned.to(x.dtype)


@lru_cache(maxsize=128)
def _positions(
    degrees: float, zoom: float, size: tuple[int, int], dtype: torch.dtype, device: torch.device
) -> Float[Tensor, "1 height width 2"]:
    """Where each pixel of a turned image comes from; kept, since the same few turns are made in every batch.

    Positions run from -1 to 1 on both axes, whatever the sides, so the sine that mixes the axes carries their ratio.
    """
    height, width = size
    cosine, sine = math.cos(math.radians(degrees)) / zoom, math.sin(math.radians(degrees)) / zoom
    matrix = [[cosine, -sine * height / width, 0.0], [sine * width / height, cosine, 0.0]]
    with torch.inference_mode(mode=False), torch.no_grad():
        theta = torch.tensor([matrix], dtype=dtype, device=device)
        return functional.affine_grid(theta, [1, 1, height, width], align_corners=False)


_Steps = tuple[_Flip | _Shift | _Turn, ...]


@dataclass(frozen=True)
class Views:
    """A fixed list of views, made by `parse_views`; call it to see a batch in all of them.

    Attributes
    ----------
    spec : str
        The words it was made from; ``parse_views(views.spec)`` equals ``views``.
    steps : tuple of tuple
        For each view its steps in order; the first view has none.
    """

    spec: str
    steps: tuple[_Steps, ...]

    @property
    def n_views(self) -> int:
        """Number of views of each image (count, >= 1)."""
        return len(self.steps)

    def __call__(self, x: Images) -> ImageViews:
        """Compute every view of every image.

        Parameters
        ----------
        x : float tensor of shape (example, channel, height, width)
            Scaled images, larger than the largest shift.

        Returns
        -------
        float tensor of shape (example, view, channel, height, width)
            On the device and in the precision of ``x``; view 0 is ``x``. Gradients flow through.

        Raises
        ------
        UsageError
            If ``x`` has another form, or is no larger than a shift.
        """
        _check(x)
        done: dict[_Steps, Tensor] = {(): x}  # a turn that many shifts follow is computed once
        return torch.stack([_apply_shared(steps, done) for steps in self.steps], dim=1)

    def sample(self, x: Images, generator: torch.Generator | None = None) -> Images:
        """Compute one view of each image, drawn evenly: augmentation for training.

        Parameters
        ----------
        x : float tensor of shape (example, channel, height, width)
            Scaled images, larger than the largest shift.
        generator : torch.Generator, optional
            Where chance comes from. Default: torch's own.

        Returns
        -------
        float tensor of shape (example, channel, height, width)

        Raises
        ------
        UsageError
            As when called.
        """
        _check(x)
        device = generator.device if generator is not None else "cpu"
        drawn = torch.randint(self.n_views, (len(x),), generator=generator, device=device)
        moves = _moves_of(self.steps, (*x.shape[-2:],)) if x.is_cuda else None
        if moves is not None:
            return _moved(x, torch.tensor(moves)[drawn.cpu()])
        counts = torch.bincount(drawn, minlength=self.n_views).tolist()
        order = drawn.argsort(stable=True).to(x.device, non_blocking=True)
        groups = torch.split(x[order], counts)
        # An empty group still goes through, so that what is wrong with a view shows whatever was drawn.
        changed = torch.cat([_apply(steps, group) for steps, group in zip(self.steps, groups, strict=True)])
        return changed[order.argsort()]


def parse_views(spec: str) -> Views:
    """Make views from words.

    Parameters
    ----------
    spec : str
        Terms joined by ``,`` (the image and what each term adds) or by ``*`` (every combination; binds tighter):

        - ``none``: the image alone
        - ``flip``: also mirrored left and right
        - ``shiftN``: also moved by up to ``N`` pixels along both axes, ``(2 N + 1)^2`` views
        - ``crossN``: also moved by ``N`` pixels up, left, right, down
        - ``rotateD``: also turned by ``D`` degrees either way, 0 < D <= 180
        - ``zoomP``: also scaled by ``1 - P / 100`` and ``1 + P / 100``, 0 < P < 100

    Returns
    -------
    Views
        Each distinct view once; the image itself first.

    Raises
    ------
    UsageError
        If a term is unknown, its number is out of range, or there are more than 1024 views.

    Examples
    --------
    >>> parse_views("flip,shift1").n_views, parse_views("flip*shift1").n_views
    (10, 18)
    """
    views: dict[_Steps, None] = {(): None}
    for product in spec.split(","):
        factors = [_term(term.strip(), spec) for term in product.split("*")]
        if math.prod(map(len, factors)) + len(views) > MAX_VIEWS:
            raise UsageError(
                f"`views` must make at most {MAX_VIEWS} views, got more from {spec!r}. Use smaller numbers."
            )
        views.update(dict.fromkeys(tuple(itertools.chain(*steps)) for steps in itertools.product(*factors)))
    return Views("".join(spec.split()), tuple(views))


def _term(term: str, spec: str) -> list[_Steps]:
    """List the views that one word stands for, the image itself first."""
    match = _TERM.fullmatch(term)
    if match is None:
        raise UsageError(
            f"`views` must be made of {_CHOICES}, joined by , or *, got {term!r} in {spec!r}. Choose those."
        )
    plain, grid, pixels, turn, number = match.groups()
    if plain:
        return [(), (_Flip(),)] if plain == "flip" else [()]
    if grid:
        return [
            (),
            *((_Shift(down, right),) for down, right in _offsets(grid, int(_positive(float(pixels), 999.0, term)))),
        ]
    if turn == "rotate":
        degrees = _positive(float(number), 180.0, term)
        return [(), (_Turn(degrees, 1.0),), (_Turn(-degrees, 1.0),)]
    share = _positive(float(number), 99.9, term) / 100
    return [(), (_Turn(0.0, 1 - share),), (_Turn(0.0, 1 + share),)]


def _offsets(grid: str, n: int) -> list[tuple[int, int]]:
    if grid == "cross":
        return [(-n, 0), (0, -n), (0, n), (n, 0)]
    if (2 * n + 1) ** 2 > MAX_VIEWS:
        raise UsageError(f"`views` must make at most {MAX_VIEWS} views, got more from 'shift{n}'. Use smaller numbers.")
    reach = range(-n, n + 1)
    return [offset for offset in itertools.product(reach, reach) if offset != (0, 0)]


def _positive(number: float, most: float, term: str) -> float:
    if not 0 < number <= most:
        raise UsageError(f"`views` must have numbers above 0 and up to {most:g}, got {term!r}. Change the number.")
    return number


def _apply(steps: _Steps, x: Images) -> Images:
    for step in steps:
        x = step(x)
    return x


def _apply_shared(steps: _Steps, done: dict[_Steps, Tensor]) -> Tensor:
    """Apply the steps; what other views begin with is kept in ``done``."""
    if steps not in done:
        done[steps] = steps[-1](_apply_shared(steps[:-1], done))
    return done[steps]


def _moves_of(views: tuple[_Steps, ...], size: tuple[int, int]) -> list[tuple[int, int, int]] | None:
    """``(down, sign, offset)`` of each view: column ``c``, counted from the middle, is column ``sign c + offset``.

    None if a view turns, shifts twice (what the first cut off does not come back) or shifts everything out.
    """
    moves = []
    for steps in views:
        down, sign, offset = 0, 1, 0
        shifts = [step for step in steps if isinstance(step, _Shift)]
        too_far = any(abs(step.down) >= size[0] or abs(step.right) >= size[1] for step in shifts)
        if too_far or len(shifts) > 1 or any(isinstance(step, _Turn) for step in steps):
            return None
        for step in steps:
            if isinstance(step, _Shift):
                down, offset = step.down, offset - sign * step.right
            else:
                sign = -sign
        moves.append((down, sign, offset))
    return moves


def _moved(x: Images, moves: Tensor) -> Images:
    """Each image moved by its own ``(down, sign, offset)``: one gather, where groups of equal moves would be dozens."""
    height, width = x.shape[-2:]
    down, sign, offset = moves.to(x.device, non_blocking=True)[:, :, None].unbind(1)
    row = torch.arange(height, device=x.device) - down
    column = torch.arange(width, device=x.device)
    column = torch.where(sign > 0, column, width - 1 - column) + offset
    inside = ((row >= 0) & (row < height))[:, :, None] & ((column >= 0) & (column < width))[:, None]
    place = (row.clamp(0, height - 1) * width)[:, :, None] + column.clamp(0, width - 1)[:, None]
    pixels = x.flatten(2).gather(2, place.flatten(1)[:, None].expand(-1, x.shape[1], -1))
    return torch.where(inside[:, None], pixels.view(x.shape), torch.zeros((), dtype=x.dtype, device=x.device))


def _check(x: Tensor) -> None:
    if x.ndim != 4 or not x.is_floating_point():
        raise UsageError(
            f"`x` must be floats of shape (example, channel, height, width), got {x.dtype} of shape {tuple(x.shape)}. "
            "Convert and reshape the images."
        )
