"""What ``slots explain`` does: the arguments for some units of a model, measured, and their page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from backbones.explanations.circuits import NULLS, Argument, Unit, UnitCard, discoveries, shuffled, unit_cards
from protocols.app.reporting.network import SLOTS, Network
from protocols.data.dataset import Dataset
from protocols.pages.unit_page import UnitView, unit_page
from protocols.summaries.units import ArgumentRow, Asked, ExplainSummary
from slots.errors import UsageError
from slots.model.slot_model import SlotModel
from slots.storage.atomic import write_text

MOST: Final = 40
"""Units of one layer that are drawn where no index is given."""

_FEWEST: Final = 64


def explain_and_save(
    model: SlotModel, data: Dataset, units: Sequence[str], *, folder: Path, out: Path, asked: Asked | None = None
) -> ExplainSummary:
    """Measure the arguments for some units, and write a page of them.

    Parameters
    ----------
    model : SlotModel
        Of images or features.
    data : Dataset
        Its test part is looked at, or its training part where it has no other.
    units : sequence of str
        Each ``LAYER:INDEX``, or ``LAYER`` for up to 40 units of it, drawn at random. The layer ``slots`` is the slots.
    folder : Path
        The model folder.
    out : Path
        The page.
    asked : Asked, optional
        How they are measured.

    Returns
    -------
    ExplainSummary

    Raises
    ------
    UsageError
        If there is no such layer or unit, or there are fewer than 64 inputs.
    """
    asked = asked or Asked()
    if out.is_dir():
        raise UsageError(f"`--out` must be a file, got the folder {str(out)!r}. Add a name, such as explain.html.")
    raw = data.x_test if len(data.x_test) else data.x_train
    chosen = np.random.default_rng(asked.seed).permutation(len(raw))[: asked.images]
    if len(chosen) < _FEWEST:
        raise UsageError(f"Units are measured on {_FEWEST} or more inputs, got {len(chosen)}. Name larger data.")
    raw = raw[np.sort(chosen)]
    model.preprocessing.check(raw)
    network = Network(model)
    x = model.preprocessing(raw, model.device)
    control = shuffled_network(network, asked.seed)
    cards: list[tuple[UnitCard, UnitCard]] = []
    try:
        for layer, indices in named_units(network, units, asked.seed, x):
            measured, beside = (
                unit_cards(it, layer, indices, x, permutations=draws, seed=asked.seed)
                for it, draws in ((network, asked.permutations), (control, 1))  # of the control no p-value is shown
            )
            cards += zip(measured, beside, strict=True)
    except ValueError as error:
        raise UsageError(str(error)) from error
    rows = _rows(cards)
    views = [UnitView(card, rows[str(card.unit)]) for card, _ in cards]
    page = unit_page(
        network, x, raw, views, title=folder.resolve().name, data=data.name, names=_slot_names(model), asked=asked
    )
    write_text(out, page)
    return ExplainSummary(
        schema=1,
        model=str(folder),
        page=str(out),
        data=data.name,
        n_images=len(x),
        permutations=asked.permutations,
        seed=asked.seed,
        units=rows,
    )


def shuffled_network(network: Network, seed: int) -> Network:
    """The control: the same network with the weights of each unit in another order; what it shares is copied.

    Parameters
    ----------
    network : Network
        Stays as it is.
    seed : int
        Of the shuffles.
    """
    other: Any = shuffled(network, seed=seed)
    found: Network = other
    return found


def named_units(network: Network, units: Sequence[str], seed: int, x: torch.Tensor) -> list[tuple[str, list[int]]]:
    """Layers in the order they are named, with their units; a layer alone stands for up to 40, drawn at random."""
    from backbones.explanations.circuits import record

    layers = dict(network.named_modules())
    found: dict[str, list[int]] = {}
    for text in units:
        if text in layers and text:
            n_units = record(network, text, x[:2]).n_units
            drawn = np.random.default_rng(seed).permutation(n_units)[:MOST]
            indices = np.sort(drawn).tolist()
            layer = text
        else:
            unit = Unit.parse(text)
            layer, indices = unit.layer, [unit.index]
        known = found.setdefault(layer, [])
        known += [it for it in indices if it not in known]
    return list(found.items())


def _rows(cards: Sequence[tuple[UnitCard, UnitCard]]) -> dict[str, tuple[ArgumentRow, ...]]:
    """What is printed of each unit."""
    tests = [argument.result.p_value for card, _ in cards for argument in card.arguments if argument.result]
    passed = iter(discoveries(tests).tolist())
    rows = {}
    for card, control in cards:
        lines = []
        for argument, other in zip(card.arguments, control.arguments, strict=True):
            beside = None if other.result is None else other.result.statistic
            counts = next(passed) if argument.result is not None else False
            lines.append(_row(argument, beside, counts))
        rows[str(card.unit)] = tuple(lines)
    return rows


def _row(argument: Argument, control: float | None, counts: bool) -> ArgumentRow:
    """One argument as it is printed."""
    found = argument.result
    return ArgumentRow(
        name=argument.name,
        null=NULLS[argument.name],
        statistic=None if found is None else found.statistic,
        null_mean=None if found is None else found.null_mean,
        null_q01=None if found is None else found.null_q01,
        null_q99=None if found is None else found.null_q99,
        p_value=None if found is None else found.p_value,
        effect=None if found is None else found.effect,
        control=control,
        counts=counts,
        why_not=argument.why_not,
    )


def _slot_names(model: SlotModel) -> dict[str, str]:
    """Of each slot as a unit, its class."""
    labels = model.head.labels.tolist()
    return {f"{SLOTS}:{slot}": model.class_name(int(label)) for slot, label in enumerate(labels)}
