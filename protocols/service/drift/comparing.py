"""What a model's stream is compared with, and which generations score it alike."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import numpy.typing as npt

from protocols.service.answering.loaded import Loaded


def calibration_of(loaded: Loaded) -> npt.NDArray[np.float64]:
    """Scores of held-out examples that a generation's familiar stream is exchangeable with; else none.

    They were measured against the slots of the fit, as the watched score is. Updates leave those as they are; where one
    of them was deleted, familiar inputs score higher, which a monitor would take for drift.

    Parameters
    ----------
    loaded : Loaded
        The generation.

    Returns
    -------
    float64 array of shape (calibration example,)
        Empty where the fit left no such scores, or a slot of the fit is gone.
    """
    novelty, n_left = loaded.model.novelty, _n_left(loaded)
    if novelty is None or novelty.familiar is None or not n_left or novelty.n_slots != n_left:
        return np.empty(0)
    return novelty.familiar


def watched(loaded: Loaded) -> bool:
    """Whether a generation gives the scores that are watched: it has a calibration, and a slot of the fit."""
    return loaded.model.novelty is not None and _n_left(loaded) > 0


def identity(loaded: Loaded) -> str:
    """Digest of all that the watched score depends on beside the backbone, and of what it is compared with.

    Two generations of the same digest score every input alike: an update, and taking it back, leave it as it is. An
    edit of the fit's slots, a new calibration and another model do not.

    Parameters
    ----------
    loaded : Loaded
        The generation.

    Returns
    -------
    str
        64 hexadecimal digits.
    """
    made, model = hashlib.sha256(), loaded.model
    centres = model.head.centres[model.head.generations == 0]
    if model.novelty is None:
        return made.hexdigest()
    tensors, values = model.novelty.state()
    tensors = {"centres": centres, **tensors}
    del tensors["calibration"]  # p-values come from it, the watched score does not
    for name, tensor in sorted(tensors.items()):
        array = np.ascontiguousarray(tensor.cpu().numpy())
        made.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        made.update(array.tobytes())
    made.update(json.dumps(values, sort_keys=True).encode())
    return made.hexdigest()


def _n_left(loaded: Loaded) -> int:
    """Slots of the fit that are still there."""
    return int((loaded.model.head.generations == 0).sum())
