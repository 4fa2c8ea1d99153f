"""What no small change of an input can do to a model's answers: `certify`."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Int

from slots.errors import UsageError
from slots.features.preprocessing import raw_inputs
from slots.features.source import FeatureSource, first_views
from slots.head.hashing import IncrementalNeuralHashing
from slots.head.prediction import Prediction
from slots.model.slot_model import SlotModel
from slots.robust.certified_features import (
    check_certifiable,
    keeps_inputs,
    reach_of,
    view_orders,
    virtual_caps,
    virtual_slots,
)
from slots.robust.config import Norm
from slots.robust.matched_slots import matched_radii
from slots.robust.nearest_slot import Box, LabelledSlots, Method, nearest_slot_radii
from slots.shapes import RawInputs

Radii = npt.NDArray[np.float64]
_BLOCK = 4096  # inputs scaled at once


@dataclass(frozen=True)
class Certificate:
    """Answers and how far each of them is safe; all arrays have shape (example,).

    Radii are in units of the scaled input: pixels lie in [0, 1]. Every change that is shorter than a radius leaves what
    it stands for as it is, whoever chooses the change.

    Parameters
    ----------
    prediction : Prediction
        The model's answers.
    radii : float64 array
        The answer's label stays, be it matched or not.
    matched_radii : float64 array
        The answer stays matched, with its label; 0 where it is not matched.
    vouched_radii : float64 array
        No slot of another label answers: the input may become unmatched, but it is never matched wrongly.
    nearest_radii : float64 array
        The label of the best pool of slots, which is the answer where nothing matches, stays. With a head that was
        fitted ``robust`` that is the label of the nearest slot.
    nearest_labels : int64 array
        That label.
    rivals : int64 array
        The slot that sets `nearest_radii`; -1 where there is no other label.
    counterfactuals : float64 array of shape (example, feature), or None
        With the method ``dual``: the nearest input for which the rival scores as much as every slot of the label.
    norm : {"l2", "linf"}
        How changes are measured.
    """

    prediction: Prediction
    radii: Radii
    matched_radii: Radii
    vouched_radii: Radii
    nearest_radii: Radii
    nearest_labels: npt.NDArray[np.int64]
    rivals: npt.NDArray[np.int64]
    counterfactuals: Radii | None
    norm: Norm

    def __len__(self) -> int:
        return len(self.radii)

    def certified(self, size: float) -> npt.NDArray[np.bool_]:
        """Answers that no change of a size can have made, for whoever may be shown changed inputs.

        Parameters
        ----------
        size : float
            Largest change that anybody can have made, >= 0, measured as the certificate is.

        Returns
        -------
        bool array of shape (example,)
            True where the nearest slots answer and their radius is larger: then they gave the same label to whatever
            input this one was made from. So those that are certified and wrong are no more than were wrong before.
        """
        found: npt.NDArray[np.bool_] = (self.nearest_labels == self.prediction.labels) & (self.nearest_radii > size)
        return found


def certify(
    model: SlotModel,
    x: RawInputs,
    *,
    norm: Norm = "l2",
    box: Box | None = None,
    method: Method | None = None,
) -> Certificate:
    """Certify a model's answers to raw inputs.

    Parameters
    ----------
    model : SlotModel
        Whose features are the inputs themselves: pixels, alone or with the view ``flip``, or feature rows; or those of
        a backbone that tells its Lipschitz constant (``lipschitz``). No whitening.
    x : array
        uint8 images or float features, as the model was fitted on.
    norm : {"l2", "linf"}, default "l2"
        How changes are measured: by Euclidean length, or by the largest entry.
    box : pair of float, optional
        Range that changed inputs stay in. Default: (0, 1) for images, none for features and behind a backbone.
    method : {"pair", "box", "dual"}, optional
        See `nearest_slot_radii`. Default: ``box`` where there is a box, else ``pair``.

    Returns
    -------
    Certificate

    Raises
    ------
    UsageError
        If the model has a backbone, views or a whitening, or the options do not go together.
    DataError
        If ``x`` is not what the model was fitted on.

    Notes
    -----
    An answer is given by slots that match, or else by the best pool. So the label stays while no slot of another label
    can match before one of its own, and while one of its own keeps matching or the best pool keeps its label:
    ``min(vouched, max(matched, nearest))``. A model whose unmatched answers an update took over (`Recall`) is certified
    by its matches alone.

    Examples
    --------
    >>> import numpy as np
    >>> from slots.robust import RobustConfig
    >>> from slots.training import TrainConfig, fit
    >>> x = np.array([[3, 0], [4, 0.1], [0, 3], [0.1, 4]], dtype=np.float32)
    >>> config = TrainConfig(epochs=2, slots_per_class=1, robust=RobustConfig(radius=1.0))
    >>> model, _ = fit(x, np.array([0, 0, 1, 1]), config=config)
    >>> found = certify(model, x, method="pair")
    >>> found.prediction.labels.tolist(), bool((found.nearest_radii > 1.9).all())
    ([0, 0, 1, 1], True)
    """
    check_certifiable(model)
    if not keeps_inputs(model) and model.device.type != "cpu":
        raise UsageError(
            f"`model` must lie on the CPU to be certified behind a backbone, got {model.device}: a GPU rounds products "
            "more than is taken off. Call model.to('cpu')."
        )
    x = raw_inputs(x)
    model.preprocessing.check(x)
    rows = first_views(FeatureSource(model.featurizer, x, keep=False)).double().cpu()
    if not keeps_inputs(model):
        return _certify_behind(model, x, rows, norm=norm, box=box, method=method)
    orders = None
    if model.preprocessing.kind == "images":
        box, orders = box or (0.0, 1.0), view_orders(model.views, model.preprocessing.shape)
    return certify_rows(model.head, rows, norm=norm, box=box, method=method, orders=orders)


def _certify_behind(
    model: SlotModel, x: RawInputs, rows: torch.Tensor, *, norm: Norm, box: Box | None, method: Method | None
) -> Certificate:
    """Certify a model with a backbone that tells its Lipschitz constant: by radii around its features."""
    if box is not None or method == "box":
        raise UsageError("`box` must be left out behind a backbone, got one: its features have none. Use pair or dual.")
    found = certify_rows(model.head, rows, method=method)
    blocks = [model.preprocessing(x[i : i + _BLOCK]) for i in range(0, max(1, len(x)), _BLOCK)]
    reaches = [reach_of(model, block) for block in blocks]
    lengths = np.concatenate([it.lengths for it in reaches])
    reach = replace(reaches[0], lengths=lengths)
    return replace(
        found,
        radii=reach.of_inputs(found.radii, norm),
        matched_radii=reach.of_inputs(found.matched_radii, norm),
        vouched_radii=reach.of_inputs(found.vouched_radii, norm),
        nearest_radii=reach.of_inputs(found.nearest_radii, norm),
        counterfactuals=None,
        norm=norm,
    )


@torch.no_grad()
def certify_rows(
    head: IncrementalNeuralHashing,
    rows: torch.Tensor,
    *,
    norm: Norm = "l2",
    box: Box | None = None,
    method: Method | None = None,
    orders: Int[torch.Tensor, "view feature"] | None = None,
) -> Certificate:
    """Certify a head's answers to feature rows; see `certify`.

    Parameters
    ----------
    head : IncrementalNeuralHashing
        With slots.
    rows : float64 tensor of shape (example, feature)
        On the CPU, not normalised.
    norm, box, method
        As `certify` takes them, but for the box, of which none is the default.
    orders : int64 tensor of shape (view, feature), optional
        The order of the entries in each view, the row's own first. Default: the row is the only view.

    Returns
    -------
    Certificate
    """
    head.require_slots()
    chosen: Method = ("pair" if box is None else "box") if method is None else method
    caps, slots, seen = head.caps(), pooled_slots(head), rows[:, None]
    n_views = 1 if orders is None else len(orders)
    if orders is not None and n_views > 1:
        caps, slots, seen = virtual_caps(caps, orders), virtual_slots(slots, orders), rows[:, orders]
    prediction = head.predict(seen.to(head.weights.device))
    nearest = nearest_slot_radii(rows.numpy(), slots, norm=norm, box=box, method=chosen)
    found = matched_radii(
        rows.to(head.weights.device),
        torch.from_numpy(prediction.labels).to(head.weights.device),
        caps,
        norm=norm,
        box=None if chosen == "pair" else box,
    )
    places = np.tile(_pooled(head).nonzero()[:, 0].cpu().numpy(), n_views)
    stays, apart = found.stays.cpu().numpy(), found.apart.cpu().numpy()
    by_pool = np.where((nearest.labels == prediction.labels) & (caps.recall is None), nearest.radii, 0.0)
    return Certificate(
        prediction=prediction,
        radii=np.minimum(apart, np.maximum(stays, by_pool)),
        matched_radii=stays,
        vouched_radii=apart,
        nearest_radii=nearest.radii,
        nearest_labels=nearest.labels,
        rivals=np.where(nearest.rivals < 0, -1, places[nearest.rivals]),
        counterfactuals=None if nearest.changes is None else rows.numpy() + nearest.changes,
        norm=norm,
    )


def pooled_slots(head: IncrementalNeuralHashing) -> LabelledSlots:
    """The slots whose pooled scores answer where nothing matches."""
    pooled = _pooled(head)
    return LabelledSlots.of(head.weights[pooled], head.labels[pooled], head.beta)


def _pooled(head: IncrementalNeuralHashing) -> torch.Tensor:
    """Which slots these are: all where none is marked."""
    return head.pooled if bool(head.pooled.any()) else torch.ones_like(head.pooled)
