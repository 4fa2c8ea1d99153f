"""Does a graph answer as its model does? onnxruntime runs it; answers may differ by rounding at a border alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from protocols.app.onnx_graph.features import FEATURES, INPUT, example_inputs
from slots.errors import ModelError
from slots.features.featurizer import Featurizer
from slots.head.decision import decide
from slots.head.prediction import Prediction
from slots.head.similarities import normalize
from slots.model.slot_model import SlotModel
from slots.rehearsal.memory import RehearsalMemory
from slots.shapes import RawInputs

FARTHEST = 1e-3
"""Largest distance between unit features of the graph and of the model that passes as rounding."""

_DRAWN = 64  # inputs of noise: they lie where no slot fires
_ROWS = 50  # of a batch; the last batch is smaller, so that other sizes are tried too
_NUDGES, _NUDGE = 64, 1e-12

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Checked:
    """What came of running a graph beside its model.

    Parameters
    ----------
    n : int
        Inputs answered by both.
    source : str
        What they were.
    n_near_ties : int
        Inputs answered otherwise, since the graph's features differ in their last digits and lie on the other side of a
        border.
    distance : float
        Largest Euclidean distance between unit features of the two.
    runtime : str
        Version of onnxruntime.
    """

    n: int
    source: str
    n_near_ties: int
    distance: float
    runtime: str


def check_graph(made: Any, model: SlotModel, given: RawInputs | None) -> Checked | None:
    """Run a graph beside its model.

    Parameters
    ----------
    made : onnx.ModelProto
        The whole graph.
    model : SlotModel
        On the CPU.
    given : array of shape (example, ...), optional
        Inputs to compare on. Default: what the model remembers, where that is whole. Noise comes in addition.

    Returns
    -------
    Checked or None
        None where onnxruntime is not installed.

    Raises
    ------
    ModelError
        If the graph does not run, its features are others than the model's, or it answers otherwise than the model's
        own rule on the very same features.
    """
    try:
        import onnxruntime
    except ModuleNotFoundError:
        return None
    x, source = _inputs(model, given)
    told = model.predict(x)
    features, answers = _run(onnxruntime, made, x)
    with torch.no_grad():
        own = torch.cat([model.features(x[i : i + _ROWS]) for i in range(0, len(x), _ROWS)])
    distance = float((normalize(features.double()) - normalize(own.double())).norm(dim=-1).max())
    if not distance <= FARTHEST:
        raise ModelError(
            f"The graph must have the model's features, got some that differ by {distance:.2g}, where {FARTHEST:g} is "
            f"rounding. onnxruntime {onnxruntime.__version__} computes the backbone otherwise; nothing was written."
        )
    exact = decide(features, model.head.caps())
    for row in np.flatnonzero(_differ(exact, answers)).tolist():
        if not _is_tie(features[row : row + 1], model, answers, row):
            raise ModelError(
                f"The graph must answer as the model, got label {int(answers['label'][row])} instead of "
                f"{int(exact.labels[row])} for input {row} of {source}, on the same features. Please report it; "
                "nothing was written."
            )
    return Checked(len(x), source, int(_differ(told, answers).sum()), distance, onnxruntime.__version__)


def _run(onnxruntime: Any, made: Any, x: RawInputs) -> tuple[Tensor, dict[str, npt.NDArray[Any]]]:
    """Features and answers of the graph."""
    import onnx

    whole = onnx.ModelProto()
    whole.CopyFrom(made)
    whole.graph.output.append(onnx.helper.make_tensor_value_info(FEATURES_SEEN, onnx.TensorProto.FLOAT, None))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        session = onnxruntime.InferenceSession(whole.SerializeToString(), options, providers=["CPUExecutionProvider"])
        names = [it.name for it in session.get_outputs()]
        parts = [session.run(names, {INPUT: np.asarray(x[i : i + _ROWS])}) for i in range(0, len(x), _ROWS)]
    except Exception as error:
        said = " ".join(str(error).split())[:200]
        raise ModelError(
            f"onnxruntime {onnxruntime.__version__} must run the graph, got: {said} Nothing was written."
        ) from error
    found = {name: np.concatenate(columns) for name, columns in zip(names, zip(*parts, strict=True), strict=True)}
    return torch.from_numpy(found.pop(FEATURES_SEEN)), found


FEATURES_SEEN = f"{FEATURES}_seen"
"""Name of the features that the head sees, whitened where the model whitens."""


def _differ(prediction: Prediction, answers: dict[str, npt.NDArray[Any]]) -> npt.NDArray[np.bool_]:
    """Rows whose label or kind of answer is another."""
    differ: npt.NDArray[np.bool_] = (prediction.labels != answers["label"]) | (prediction.answers != answers["answer"])
    return differ


def _is_tie(features: Tensor, model: SlotModel, answers: dict[str, npt.NDArray[Any]], row: int) -> bool:
    """Whether the model itself gives this answer to features that differ in their last digits."""
    noise = torch.randn(_NUDGES, *features.shape[1:], dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    near = features.double() * (1 + _NUDGE * noise)
    found = decide(near, model.head.caps())
    same = {name: np.repeat(answers[name][row : row + 1], _NUDGES) for name in ("label", "answer")}
    return not _differ(found, same).all()


def _inputs(model: SlotModel, given: RawInputs | None) -> tuple[RawInputs, str]:
    """What to compare on, in words too."""
    noise = example_inputs(model.featurizer, _DRAWN)
    if given is not None:
        model.preprocessing.check(given)
        inputs = np.asarray(given).astype(noise.dtype).reshape(-1, *noise.shape[1:])
        return np.concatenate([inputs, noise]), f"{len(inputs):,} given inputs and {_DRAWN} of noise"
    kept = _kept(model)
    if kept is None:
        return noise, f"{_DRAWN} inputs of noise"
    return np.concatenate([kept, noise]), f"{len(kept):,} remembered inputs and {_DRAWN} of noise"


def _kept(model: SlotModel) -> npt.NDArray[Any] | None:
    """Inputs that a model remembers whole: small images, and feature rows."""
    if model.preprocessing.kind == "images":
        images, (channels, height, width) = model.thumbnails, model.preprocessing.shape
        if images is None or images.shape[2:] != (height, width, channels):
            return None
        known = (model.head.exemplars >= 0).cpu().numpy()
        return np.unique(images[known], axis=0) if known.any() else None
    if model.rehearsal is None or not isinstance(model.backbone, torch.nn.Identity):
        return None
    return _raw_rows(model.featurizer, model.rehearsal)


def _raw_rows(featurizer: Featurizer, memory: RehearsalMemory) -> Floats | None:
    """Feature rows as they were before a whitening."""
    rows = memory.features.double()
    if memory.lengths is not None:
        rows = rows * memory.lengths.double()[:, None]
    if featurizer.whitening is not None:
        if memory.lengths is None:
            return None
        whitening = featurizer.whitening
        rows = rows @ torch.linalg.pinv(whitening.matrix.cpu()) + whitening.mean.cpu()
    return rows.float().numpy()
