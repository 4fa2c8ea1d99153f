"""Text for the protocols: read once by a frozen encoder, it is feature rows from then on."""

from __future__ import annotations

import hashlib
import io
from dataclasses import replace
from pathlib import Path

import numpy as np

import backbones
from protocols.data.dataset import Dataset
from protocols.recipes.building import load_model, read_encoder
from protocols.recipes.planning import check_text_backbone
from slots.errors import UsageError
from slots.storage.atomic import write_file


def embedded(
    data: Dataset, backbone: str | None, model: Path | None, *, device: str, cache: Path
) -> tuple[Dataset, str, None]:
    """The features of texts in place of the texts.

    Parameters
    ----------
    data : Dataset
        Both parts are read.
    backbone : str, optional
        ``text:NAME``. Default: that of the model.
    model : Path, optional
        A model folder, fitted on text.
    device : str
        Where the encoder runs.
    cache : Path
        Folder in which features are kept between runs.

    Returns
    -------
    data : Dataset
        Float32 feature rows under the texts' digest.
    backbone : str
        What read them.
    model : None
        Nothing of the model but its encoder is used.

    Raises
    ------
    UsageError
        If the data is no text, or nothing is named that reads it.
    """
    if model is not None and data.kind == "text":
        encoder = load_model(model, device=device).backbone
        if not isinstance(encoder, backbones.TextBackbone):
            raise UsageError(f"`model` must have been fitted on text, got {str(model)!r}. Name another.")
        name = f"text:{encoder.model}"
    else:
        name = check_text_backbone(data, backbone)
        encoder = read_encoder(name).to(device)
    identity = f"{encoder.weights} {device.split(':', maxsplit=1)[0]} {data.digest}"
    path = cache / f"text-{hashlib.sha256(identity.encode()).hexdigest()[:16]}.npy"
    texts = np.concatenate([data.x_train, data.x_test])
    if path.exists():
        rows = np.load(path)
    else:
        rows, file = encoder(texts).cpu().numpy(), io.BytesIO()
        np.save(file, rows)
        write_file(path, file.getvalue())
    n = len(data.x_train)
    return replace(data, x_train=rows[:n], x_test=rows[n:]), name, None
