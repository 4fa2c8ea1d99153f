"""The `slot-update` protocol: accuracy after a model was told a few labels of data that has new classes."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from protocols.harness.encoders import make_encoder
from protocols.harness.outcome import Column, Curve, Row, SeedOutcome
from protocols.harness.protocol import Protocol, Setting
from protocols.recipes.recipes import find_recipe
from protocols.runs.slot_update.methods import NAMES, Peer, QueryLog, peer_rows
from protocols.runs.slot_update.metrics import Answers, figures_of, share
from protocols.runs.slot_update.splits import Split, make_split, new_classes
from slots.errors import UsageError
from slots.head.prediction import changed_matched
from slots.progress import Progress, part
from slots.training.config import TrainConfig
from slots.training.defaults import AutoConfig
from slots.training.fitting import fit
from slots.update.config import UpdateConfig
from slots.update.inquiry import Inquiry
from slots.update.self_training import SpreadConfig

BUDGETS = (10, 20, 50, 100, 200, 500, 1000, 2000)
"""Numbers of labels that have a column."""

OURS = "slots: inquiry and update"
_UPDATE = UpdateConfig(spread=SpreadConfig(n_iter=6), epochs=8)
_SMALL = 5000  # examples; of smaller bases the fit chooses by a look at them, as `slots.fit` does
_NOTE = "Asks in rounds. The features as they are, without the views that the slots could match besides."
_CHART = "Accuracy on never-seen examples"


def run_seed(setting: Setting, seed: int, progress: Progress) -> SeedOutcome:
    """Every way to choose and to learn, on one split."""
    budgets, wanted = _options(setting)
    held_out = list(PROTOCOL.option(setting, "held_out"))
    new = new_classes(setting.data, held_out, wanted=bool(PROTOCOL.option(setting, "new_classes")))
    split = make_split(setting.data, new, seed)
    if "budgets" not in setting.options:  # the defaults are for data of ten thousands
        budgets = [budget for budget in budgets if budget < len(split.stream_y)]
    if max(budgets, default=len(split.stream_y)) >= len(split.stream_y):
        most = max(budgets, default=BUDGETS[0])
        raise UsageError(
            f"`budgets` must be below the {len(split.stream_y)} examples of the stream, got {most}. Ask fewer."
        )
    encoder = make_encoder(setting, split.base, split.base_y, seed, part(progress, 0.0, 0.2))
    seen = replace(split, base=encoder(split.base), stream=encoder(split.stream), test=encoder(split.test))
    rows, curves = [], []

    def add(found: Peer, *, ours: bool = False) -> None:
        figures = figures_of(seen, found.before, dict(zip(budgets, found.answers, strict=True)), wanted)
        rows.append(Row(found.method, figures, ours=ours, note=found.note))
        y = [figures[key] or 0.0 for key in ("before", *(f"held_out_{budget}" for budget in budgets))]
        curves.append(Curve(_CHART, found.method, [0, *budgets], y, "labels asked", "accuracy", ours=ours))

    ours, told, facts = _ours(setting, seen, budgets, seed, part(progress, 0.2, 0.7))
    add(ours, ours=True)
    for peer in peer_rows(setting, seen, told, budgets, seed=seed, progress=part(progress, 0.7, 1.0)):
        add(peer)
    facts |= {"base": len(split.base_y), "stream": len(split.stream_y), "never_seen": len(split.test_y)}
    return SeedOutcome(rows, curves, facts | {"new_classes": new.tolist(), "budgets": budgets, "wanted": wanted})


def _options(setting: Setting) -> tuple[list[int], float]:
    """Budgets in order, and the accuracy that is wanted."""
    budgets = sorted({int(budget) for budget in PROTOCOL.option(setting, "budgets")})
    if not budgets or not set(budgets) <= set(BUDGETS):
        known = ", ".join(map(str, BUDGETS))
        raise UsageError(f"`budgets` must be some of {known}, got {budgets}. Only those have a column.")
    wanted, reach = (float(PROTOCOL.option(setting, key)) for key in ("wanted", "reach"))
    if not (0 < wanted < 1 and 0 < reach <= 1):
        raise UsageError(
            f"`wanted` must lie in (0, 1) and `reach` in (0, 1], got {wanted} and {reach}. Try 0.95 and 0.4."
        )
    return budgets, wanted


def fit_config(backbone: str, n_examples: int, *, reach: float, seed: int, device: str) -> TrainConfig | AutoConfig:
    """How slots are fitted, without views: by the recipe of the kind of features; of small data by a look at them."""
    small = n_examples < _SMALL
    recipe = TrainConfig() if small else find_recipe("pixels" if backbone == "pixels" else "none", "").train
    closing = replace(recipe.closing, reach=reach)
    config = replace(recipe, views="none", closing=closing, seed=seed, device=device)
    return AutoConfig(config) if small else config


def _ours(
    setting: Setting, seen: Split, budgets: Sequence[int], seed: int, progress: Progress
) -> tuple[Peer, QueryLog, dict[str, Any]]:
    """Fit once, ask in rounds, and update the fitted model anew with each budget."""
    reach = float(PROTOCOL.option(setting, "reach"))
    config = fit_config(setting.backbone, len(seen.base_y), reach=reach, seed=seed, device=setting.device)
    names = setting.data.class_names
    model, fitted = fit(seen.base, seen.base_y, config=config, class_names=names, progress=part(progress, 0.0, 0.4))
    before = model.predict(seen.test)
    started = time.perf_counter()
    inquiry = Inquiry(model, seen.stream)
    spent, told, found = time.perf_counter() - started, np.zeros(0, np.int64), []
    for place, budget in enumerate(budgets):
        progress(f"asking and learning {budget} labels", 0.4 + 0.6 * place / len(budgets))
        started = time.perf_counter()
        while len(told) < budget and len(rows := inquiry.ask()):
            rows = rows[: budget - len(told)]
            inquiry.tell({int(row): int(seen.stream_y[row]) for row in rows})
            told = np.concatenate([told, rows])
        spent += time.perf_counter() - started
        started, after = time.perf_counter(), copy.deepcopy(model)
        options: dict[str, Any] = {"proposal": inquiry.proposal, "pool": inquiry.pool}
        after.update(seen.stream, inquiry.given, config=replace(_UPDATE, seed=seed), **options)
        seconds = spent + time.perf_counter() - started
        test, stream = after.predict(seen.test), after.predict(seen.stream)
        changed = len(changed_matched(before, test)) + len(changed_matched(inquiry.proposal.prediction, stream))
        found.append(Answers(test.labels, stream.labels, told, after.head.n_slots, seconds, changed))
    new = seen.is_new
    facts = {
        "slots_before": model.head.n_slots,
        "fit_s": fitted.elapsed_s,
        "unmatched_stream": float((~inquiry.proposal.prediction.matched).mean()),
        "known_classes_matched": share(before.matched, ~new),
        "new_classes_matched": share(before.matched, new),
        "asked_of_new_classes": int(np.isin(seen.stream_y[told], seen.new).sum()),
        "matched_after": float(test.matched.mean()),
        "right_when_matched_after": share(test.labels == seen.test_y, test.matched),
    }
    return Peer(OURS, before.labels, found, _NOTE), QueryLog(model, told), facts


PROTOCOL = Protocol(
    name="slot-update",
    title="Accuracy after an update",
    about=(
        "A model is fitted on two thirds of the training part without the new classes. A stream of the other third, "
        "with all classes and without labels, is then shown; a method may ask for the labels of some of it. Accuracy "
        "is measured on the same never-seen examples before and after, so no example that was taken out of the "
        "measurement makes a gain. New is the accuracy on the new classes alone. Control looks the asked labels up "
        "and learns nothing. Never asked is the stream without the asked examples, at the largest budget. "
        "Changed answers counts the inputs of stream and never-seen part that a slot matched before and whose answer "
        "differs in any field afterwards, over all budgets."
    ),
    columns=(
        Column("before", "before"),
        *(Column(f"held_out_{budget}", f"{budget} labels") for budget in BUDGETS),
        *(Column(f"new_{budget}", f"new, {budget}") for budget in BUDGETS),
        Column("gain", "gain"),
        Column("known", "known classes"),
        Column("stream", "stream"),
        Column("never_asked", "never asked"),
        Column("control", "control"),
        Column("labels_wanted", "labels to the wanted accuracy", "count", "lower"),
        Column("slots_wanted", "slots to the wanted accuracy", "count", "lower"),
        Column("slots", "slots or prototypes", "count", "lower"),
        Column("changed", "changed answers", "count", "lower"),
        Column("seconds", "seconds to choose and learn", "seconds", "lower"),
    ),
    headline="held_out_100",
    peers=tuple(name for name in NAMES if name != "random"),
    defaults={
        "budgets": [50, 100, 200, 500],
        "held_out": [],
        "new_classes": True,
        "wanted": 0.95,
        "reach": 0.4,
    },
    run_seed=run_seed,
)
