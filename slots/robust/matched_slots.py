"""How far an input may be moved before a slot that matches lets go, or one of another label can match."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from slots.head.caps import SlotCaps, margins
from slots.head.similarities import normalize
from slots.robust.box_kernels import Caps, Doubles, Space, fill_clear
from slots.robust.config import Norm
from slots.robust.keeping_kernels import fill_kept
from slots.shapes import Features, Labels

_ROUNDING = 1e-7  # added to or taken off each angle: next to 0 an arc cosine of a float64 cosine is off by 5e-8


@dataclass(frozen=True)
class MatchedRadii:
    """Radii of matches, float64 tensors of shape (example,).

    Parameters
    ----------
    stays : float64 tensor
        Every shorter change leaves the input matched with the label asked about; 0 where it is not.
    apart : float64 tensor
        No shorter change makes a slot of another label answer; 0 where one does. Infinite where there is none.
    """

    stays: Tensor
    apart: Tensor


@torch.no_grad()
def matched_radii(
    rows: Features,
    labels: Labels,
    caps: SlotCaps,
    *,
    norm: Norm = "l2",
    box: tuple[float, float] | None = None,
) -> MatchedRadii:
    """Certify the match rule at some inputs.

    Parameters
    ----------
    rows : float tensor of shape (example, feature)
        Inputs that are their own features, not normalised.
    labels : int64 tensor of shape (example,)
        The label that shall stand, of each.
    caps : SlotCaps
        The slots, of any generations.
    norm : {"l2", "linf"}, default "l2"
        How a change is measured.
    box : pair of float, optional
        Range that changed inputs stay in. Default: none.

    Returns
    -------
    MatchedRadii

    Notes
    -----
    Moving ``x`` by ``delta`` turns its direction by at most ``arcsin(|delta| / |x|)``, and a turn by ``theta`` changes
    a margin by at most ``theta``. Slot ``i`` fires at ``theta`` while ``theta < m_i``; slot ``j`` cannot while
    ``theta < -m_j``, and if both are of one generation ``i`` answers before ``j`` while ``theta < (m_i - m_j) / 2``. A
    later generation is not asked while an older one fires. So for each ``j`` of another label the largest of ``-m_j``
    and, over own slots ``i``, ``m_i`` (an older ``i``) or ``min(m_i, (m_i - m_j) / 2)`` (of one generation) keeps it
    from answering, and of these the smallest is ``apart``. A change whose largest entry is ``e`` is no longer than
    ``e sqrt(n)``.

    In the box, and for the largest entry, a second bound is often better: a cap with threshold ``t >= 0`` around ``w``
    holds ``z`` only where ``<z, w> > t |z| >= t <z, u>`` for every unit ``u``; with ``u`` the direction of ``x`` that
    is a half-space ``<z, w - t u> > 0``, whose distance inside the box is computed exactly. A slot is kept out by
    whichever of its two caps is farther.

    Nothing a later generation holds enters ``stays``, nor ``apart`` where an older slot matches: updates leave the
    certificates of matched answers as they are.
    """
    wide = rows.double()
    length = wide.norm(dim=1)
    unit = normalize(wide)
    limits = caps.precision.double(), caps.support.double()
    scores = unit @ normalize(caps.weights.double()).T, unit @ normalize(caps.centres.double()).T
    depth = margins(*scores, *limits)
    mine = labels[:, None] == caps.labels
    stays = (depth - _ROUNDING).masked_fill(~mine, -math.inf)
    entries = math.sqrt(wide.shape[1]) if norm == "linf" else 1.0
    turns = torch.zeros(len(wide), dtype=torch.float64, device=wide.device)
    ready = torch.full_like(turns, math.inf)  # the smallest, over generations so far, of what older strangers allow
    apart = torch.full_like(turns, math.inf)
    older = torch.zeros_like(turns)  # how far some own slot of an older generation fires on
    asked = None if norm == "l2" and box is None else _Box(wide, caps, box or (-math.inf, math.inf), norm)
    for generation in caps.generations.unique().tolist():
        here = caps.generations == generation
        best = stays[:, here].amax(1)
        foreign = (depth[:, here] + _ROUNDING).masked_fill(mine[:, here], -math.inf)
        inside = torch.minimum(best[:, None], (best[:, None] - foreign) / 2)
        held = _lengths(torch.maximum(-foreign, inside), length) / entries
        held = torch.maximum(held, older[:, None]).masked_fill(mine[:, here], math.inf)
        kept = _lengths(best, length) / entries
        if asked is None:
            clear = held.amin(1)
        else:
            clear, kept = asked.clear(held, here), asked.kept(kept, stays[:, here], here)
        turns = torch.maximum(turns, torch.minimum(kept, torch.minimum(ready, clear)))
        ready = torch.minimum(ready, clear)
        apart = torch.minimum(apart, clear)
        older = torch.maximum(older, kept)
    return MatchedRadii(stays=turns, apart=apart)


@dataclass(frozen=True)
class _Box:
    """Inputs and slots for distances inside a box, or by the largest entry."""

    rows: Tensor
    caps: SlotCaps
    box: tuple[float, float]
    norm: Norm

    def clear(self, held: Tensor, here: Tensor) -> Tensor:
        """How far the nearest of the slots ``here`` is kept out, at least by what is known of each."""
        out = np.zeros(len(self.rows))
        fill_clear(_array(self.rows), _array(held), self._arrays(here), self._space, out)
        return torch.from_numpy(out).to(held.device)

    def kept(self, known: Tensor, depth: Tensor, here: Tensor) -> Tensor:
        """How far one of the slots ``here`` fires on, at least as far as is known; for the largest entry only."""
        if self.norm == "l2":
            return known
        out = _array(known).copy()
        fill_kept(_array(self.rows), _array(depth), self._arrays(here), self._space, out)
        return torch.from_numpy(out).to(known.device)

    @property
    def _space(self) -> Space:
        return Space(*self.box, self.norm == "linf")

    def _arrays(self, here: Tensor) -> Caps:
        caps = self.caps
        return Caps(
            _array(normalize(caps.weights[here].double())),
            _array(caps.precision[here].double()),
            _array(normalize(caps.centres[here].double())),
            _array(caps.support[here].double()),
        )


def _array(tensor: Tensor) -> Doubles:
    return np.ascontiguousarray(tensor.numpy(force=True))


def _lengths(turn: Tensor, length: Tensor) -> Tensor:
    """Shortest change that can turn an input by an angle: ``|x| sin(angle)``, and ``|x|`` from a right angle on."""
    across = length if turn.ndim == 1 else length[:, None]
    return across * turn.nan_to_num(nan=0.0).clamp(0, math.pi / 2).sin()
