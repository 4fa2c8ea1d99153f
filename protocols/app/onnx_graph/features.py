"""From raw inputs to view features as ONNX: preprocessing, views and backbone, as torch traces them."""

from __future__ import annotations

import copy
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from protocols.app.onnx_graph.nodes import OPSET, Nodes
from slots.errors import ModelError, UsageError
from slots.features.featurizer import Featurizer

INPUT, FEATURES = "input", "features"
"""Names of the graph's input, and of the backbone's features inside of it."""

_ROWS = 3  # of the traced example


class _Front(nn.Module):
    """Preprocessing, views and backbone in one, with a batch of any size."""

    def __init__(self, featurizer: Featurizer) -> None:
        super().__init__()
        self.preprocessing, self.views, self.backbone = featurizer.preprocessing, featurizer.views, featurizer.backbone

    def forward(self, x: Tensor) -> Tensor:
        """Features of every view."""
        inputs = self.preprocessing(x)
        views = self.views(inputs) if inputs.ndim == 4 else inputs[:, None]
        found: Tensor = self.backbone(views.flatten(0, 1))
        return found.reshape(-1, self.views.n_views, found.shape[-1])


def feature_graph(featurizer: Featurizer) -> Any:
    """A graph from raw inputs to float32 features of shape (batch, view, feature), before any whitening.

    Parameters
    ----------
    featurizer : Featurizer
        On the CPU, in evaluation mode.

    Returns
    -------
    onnx.ModelProto
        Its input is uint8 of shape (batch, height, width, channel), or float32 of shape (batch, feature).

    Raises
    ------
    UsageError
        If the model reads texts.
    ModelError
        If torch cannot translate the backbone.
    """
    if featurizer.preprocessing.kind == "text":
        raise UsageError(
            "A model of text cannot become an ONNX graph: how its encoder reads sentences is no arithmetic of tensors. "
            "Export a model fitted on embeddings, and make these where the graph runs."
        )
    if featurizer.preprocessing.kind == "features" and isinstance(featurizer.backbone, nn.Identity):
        return _rows_graph(featurizer.preprocessing.shape[0])
    front = _Front(copy.deepcopy(featurizer)).eval()
    for layer in front.modules():
        fix = getattr(layer, "fix_", None)
        if callable(fix):  # what it computes of its weights alone becomes a constant of the graph
            fix()
    shape = featurizer.preprocessing.shape
    if featurizer.preprocessing.kind == "images":
        example = torch.zeros(_ROWS, *shape[1:], shape[0], dtype=torch.uint8)
    else:
        example = torch.zeros(_ROWS, *shape)
    return _traced(front, example)


def _rows_graph(n_features: int) -> Any:
    """Feature rows have one view, themselves."""
    from onnx import TensorProto, helper

    add = Nodes("rows/")
    add.named(FEATURES, add("Unsqueeze", INPUT, add.axes(1)))
    given = helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["batch", n_features])
    found = helper.make_tensor_value_info(FEATURES, TensorProto.FLOAT, ["batch", 1, n_features])
    graph = helper.make_graph(add.nodes, "slots", [given], [found], add.constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)


@torch.no_grad()
def _traced(front: nn.Module, example: Tensor) -> Any:
    """Let torch translate the module: by its tracer, which needs no further package, else by its newer exporter."""
    import onnx

    names: dict[str, Any] = {"input_names": [INPUT], "output_names": [FEATURES], "opset_version": OPSET}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer warns of being the older one, and of shapes that it takes as given
        try:
            front(example)  # so that what views keep from call to call is at hand, and no part of the graph
            axes = {INPUT: {0: "batch"}, FEATURES: {0: "batch"}}
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / "features.onnx"
                torch.onnx.export(front, (example,), file, dynamo=False, dynamic_axes=axes, **names)
                return onnx.load(file)
        except Exception as error:  # noqa: BLE001  # what it cannot translate comes as errors of many kinds
            said = " ".join(str(error).split())[:200]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            sizes = ({0: torch.export.Dim("batch")},)
            program = torch.onnx.export(front, (example,), dynamo=True, dynamic_shapes=sizes, verbose=False, **names)
    except ModuleNotFoundError as missing:
        hint = f" torch's newer exporter needs the package {missing.name}, which may help."
    except Exception:  # noqa: BLE001
        hint = ""
    else:
        assert program is not None
        return program.model_proto
    raise ModelError(f"torch cannot translate the backbone into ONNX: {said}.{hint} Choose another backbone.")


def example_inputs(featurizer: Featurizer, n: int, *, seed: int = 0) -> np.ndarray:
    """Noise of the kind and shape of the model's inputs."""
    rng, shape = np.random.default_rng(seed), featurizer.preprocessing.shape
    if featurizer.preprocessing.kind == "images":
        return rng.integers(0, 256, (n, *shape[1:], shape[0]), dtype=np.uint8)
    return rng.normal(size=(n, *shape)).astype(np.float32)
