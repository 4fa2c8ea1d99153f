"""The setting of a run from a user's words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import backbones
from protocols.data.dataset import Dataset
from protocols.data.loading import default_data_dir
from protocols.harness.protocol import Protocol, Setting
from protocols.harness.texts import embedded
from protocols.recipes.building import pick_device
from protocols.recipes.planning import parse_options
from slots.errors import UsageError


def make_setting(
    protocol: Protocol,
    data: Dataset,
    *,
    backbone: str | None = None,
    weights: str | None = None,
    model: Path | None = None,
    peers: str = "all",
    options: Sequence[str] = (),
    device: str = "auto",
    data_dir: Path | None = None,
) -> Setting:
    """The setting that a user's words stand for.

    Parameters
    ----------
    protocol : Protocol
        Says which options and peers there are.
    data : Dataset
        Training and test part, with labels.
    backbone : str, optional
        Default: the protocol's choice for images (``protocol.backbone``), ``none`` for feature rows. Text
        needs ``text:NAME``, or a model of text: its features are the rows that all methods see.
    weights : str, optional
        File of weights for the backbone, which then stays frozen. Default: none.
    model : Path, optional
        Instead of a backbone.
    peers : str, default "all"
        ``all``, ``none``, or names with commas between them.
    options : sequence of str
        ``KEY=VALUE``.
    device : str, default "auto"
        ``auto``, ``cpu`` or a CUDA device; ``auto`` takes the first GPU where there is one.
    data_dir : Path, optional
        Trained features are kept in its folder ``features`` between runs.

    Returns
    -------
    Setting

    Raises
    ------
    UsageError
        If the words contradict each other.
    """
    if model is not None and (backbone is not None or weights is not None):
        raise UsageError("`model` must come without backbone and weights, got both. Leave one out.")
    cache = (data_dir or default_data_dir()) / "features"
    if data.kind == "text" or backbones.is_text_name(backbone or ""):
        data, backbone, model = embedded(data, backbone, model, device=pick_device(device), cache=cache)
    named = {"all": protocol.peers, "none": ()}
    chosen = named.get(peers, tuple(part.strip() for part in peers.split(",")))
    found: dict[str, Any] = parse_options(options)
    default = protocol.backbone if data.kind == "images" else "none"
    return Setting(
        data=data,
        backbone=backbone or default,
        weights=weights,
        model=model,
        peers=chosen,
        options=found,
        device=pick_device(device),
        cache=cache,
        data_dir=data_dir,
    )
