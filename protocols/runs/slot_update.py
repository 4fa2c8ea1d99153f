"""The `slot-update` protocol: accuracy after a model was told a few labels of data that has new classes."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from protocols.peers import selection
from protocols.recipes import find_recipe
from protocols.runs.encoders import Features, make_encoder
from protocols.runs.outcome import Column, Curve, Row, SeedOutcome
from protocols.runs.protocol import Protocol, Report, Setting
from protocols.runs.update_splits import Labels, Split, make_split, new_classes
from protocols.updating import changed_matched
from slots.asking import Inquiry
from slots.errors import UsageError
from slots.model import SlotModel
from slots.predictions import Prediction
from slots.spreading import SpreadConfig
from slots.train_config import TrainConfig
from slots.training import fit
from slots.updating import UpdateConfig

BUDGETS = (10, 20, 50, 100, 200, 500, 1000, 2000)
"""Numbers of labels that have a column."""

OURS = "slots: inquiry and update"
_UPDATE = UpdateConfig(spread=SpreadConfig(rounds=6), epochs=8)
_MARGIN_ROUNDS = (25, 25, 50, 50, 100)
_SMALL = 5000  # examples; smaller bases get smaller batches and fewer slots
_CHART = "Accuracy on never-seen examples"


@dataclass(frozen=True)
class _Answers:
    """What a method says once it was told some labels."""

    test: Labels
    stream: Labels
    asked: npt.NDArray[np.int64]
    slots: int
    seconds: float
    changed: int | None = None


def run_seed(setting: Setting, seed: int, report: Report) -> SeedOutcome:
    """Every way to choose and to learn, on one split."""
    budgets, wanted = _options(setting)
    held_out = list(PROTOCOL.option(setting, "held_out"))
    new = new_classes(setting.data, held_out, wanted=bool(PROTOCOL.option(setting, "new_classes")))
    split = make_split(setting.data, new, seed)
    if max(budgets) >= len(split.stream_y):
        raise UsageError(
            f"`budgets` must be below the {len(split.stream_y)} examples of the stream, got {max(budgets)}. Ask fewer."
        )
    encoder = make_encoder(setting, split.base, split.base_y, seed, _within(report, 0.0, 0.2))
    seen = replace(split, base=encoder(split.base), stream=encoder(split.stream), test=encoder(split.test))
    rows, curves = [], []

    def add(method: str, before: Labels, answers: Sequence[_Answers], *, ours: bool = False, note: str = "") -> None:
        figures = _figures(seen, before, dict(zip(budgets, answers, strict=True)), wanted)
        rows.append(Row(method, figures, ours=ours, note=note))
        y = [float((before == seen.test_y).mean()), *(figures[f"held_out_{budget}"] for budget in budgets)]
        curves.append(Curve(_CHART, method, [0, *budgets], y, "labels asked", "accuracy", ours=ours))

    model, before, answers, facts = _ours(setting, seen, budgets, seed, _within(report, 0.2, 0.7))
    add(OURS, before.labels, answers, ours=True, note="Features as they are, without views; see the page.")
    _peers(setting, seen, budgets, seed, model, answers[-1].asked, add, _within(report, 0.7, 1.0))
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


def fit_config(backbone: str, n_examples: int, *, reach: float, seed: int) -> TrainConfig:
    """How the slots are fitted: the general recipe of the kind of features, smaller for small data, without views."""
    config = replace(find_recipe("pixels" if backbone == "pixels" else "none", "").train, views="none", seed=seed)
    if n_examples < _SMALL:
        config = replace(config, epochs=60, batch_size=100, slots_per_class=10, held_out=0.1)
    return replace(config, closing=replace(config.closing, reach=reach))


def _ours(
    setting: Setting, seen: Split, budgets: Sequence[int], seed: int, report: Report
) -> tuple[SlotModel, Prediction, list[_Answers], dict[str, Any]]:
    """Fit once, ask in rounds, and update the fitted model anew with each budget."""
    config = fit_config(setting.backbone, len(seen.base_y), reach=PROTOCOL.option(setting, "reach"), seed=seed)
    config = replace(config, device=setting.device)
    names = setting.data.class_names
    model, fitted = fit(seen.base, seen.base_y, config=config, class_names=names, report=_within(report, 0.0, 0.4))
    before = model.predict(seen.test)
    started = time.perf_counter()
    inquiry = Inquiry(model, seen.stream)
    spent, told, found = time.perf_counter() - started, np.zeros(0, np.int64), []
    for place, budget in enumerate(budgets):
        report(f"asking and learning {budget} labels", 0.4 + 0.6 * place / len(budgets))
        started = time.perf_counter()
        while len(told) < budget and len(rows := inquiry.ask()):
            rows = rows[: budget - len(told)]
            inquiry.tell({int(row): int(seen.stream_y[row]) for row in rows})
            told = np.concatenate([told, rows])
        spent += time.perf_counter() - started
        started, after = time.perf_counter(), copy.deepcopy(model)
        options: dict[str, Any] = {"proposal": inquiry.proposal, "outlook": inquiry.outlook}
        after.update(seen.stream, inquiry.given, config=replace(_UPDATE, seed=seed), **options)
        seconds = spent + time.perf_counter() - started
        test, stream = after.predict(seen.test), after.predict(seen.stream)
        changed = len(changed_matched(before, test)) + len(changed_matched(inquiry.proposal.prediction, stream))
        found.append(_Answers(test.labels, stream.labels, told, after.head.n_slots, seconds, changed))
    new = seen.is_new
    facts = {
        "slots_before": model.head.n_slots,
        "fit_s": fitted.elapsed_s,
        "unmatched_stream": float((~inquiry.proposal.prediction.matched).mean()),
        "known_classes_matched": _share(before.matched, ~new),
        "new_classes_matched": _share(before.matched, new),
        "asked_of_new_classes": int(np.isin(seen.stream_y[told], seen.new).sum()),
        "matched_after": float(test.matched.mean()),
        "right_when_matched_after": _share(test.labels == seen.test_y, test.matched),
    }
    return model, before, found, facts


def _peers(
    setting: Setting,
    seen: Split,
    budgets: Sequence[int],
    seed: int,
    model: SlotModel,
    ours: npt.NDArray[np.int64],
    add: Callable[..., None],
    report: Report,
) -> None:
    """Rows of the prototypes, fed by each way to choose."""
    report("k-means prototypes", 0.0)
    started = time.perf_counter()
    head = selection.Prototypes(seen.base, seen.base_y, seen.stream, seed)
    made_s = time.perf_counter() - started
    before = head.answer(seen.test, np.zeros(0, np.int64), np.zeros(0, np.int64))
    most, everything = max(budgets), np.unique(np.concatenate([seen.stream_y, seen.base_y]))
    radius = 0.0

    def answers(chosen: npt.NDArray[np.int64], seconds: float) -> list[_Answers]:
        found = []
        for budget in budgets:
            asked = chosen[:budget]
            began = time.perf_counter()
            test = head.answer(seen.test, asked, seen.stream_y[asked])
            took = seconds + time.perf_counter() - began
            stream = head.answer(seen.stream, asked, seen.stream_y[asked])
            found.append(_Answers(test, stream, asked, len(head.labels) + len(asked), took))
        return found

    ways: dict[str, Callable[[], npt.NDArray[np.int64]]] = {
        "random": lambda: np.random.default_rng(seed).permutation(len(seen.stream_y))[:most],
        "margin": lambda: selection.by_margin(head, most),
        "margin-rounds": lambda: selection.by_margin_in_rounds(head, seen.stream_y, most, _MARGIN_ROUNDS),
        "k-center": lambda: selection.k_center(head, most),
        "unmatched-cover": lambda: _padded(model.propose(seen.stream, budget=most).queries, most, seen, seed),
        "our-questions": lambda: _padded(ours, most, seen, seed),
    }
    for place, (name, choose) in enumerate(ways.items()):
        if name != "random" and name not in setting.peers:
            continue
        report(name, 0.1 + 0.6 * place / len(ways))
        began = time.perf_counter()
        chosen = choose()
        add(f"prototypes: {_NAMES[name]}", before, answers(chosen, made_s + time.perf_counter() - began), note=_NOTE)
    if not {"probcover", "probcover-best"} & set(setting.peers):
        return
    report("ProbCover", 0.7)
    began = time.perf_counter()
    radius = selection.pure_radius(head, len(everything), seed)
    radii = [radius, *(stretch * radius for stretch in selection.STRETCHES if "probcover-best" in setting.peers)]
    covers = selection.prob_cover(head, radii, most)
    seconds = made_s + (time.perf_counter() - began) / len(radii)
    tried = [answers(chosen, seconds) for chosen in covers]
    if "probcover" in setting.peers:
        add(f"prototypes: {_NAMES['probcover']}", before, tried[0], note=f"{_NOTE} Radius by the rule of its paper.")
    if "probcover-best" in setting.peers:
        best = [max(each, key=lambda it: float((it.test == seen.test_y).mean())) for each in zip(*tried, strict=True)]
        note = f"{_NOTE} For each budget the best of {len(radii)} radii by the never-seen examples: nobody can know it."
        add(f"prototypes: {_NAMES['probcover-best']}", before, best, note=note)


def _padded(rows: npt.NDArray[np.int64], most: int, seen: Split, seed: int) -> npt.NDArray[np.int64]:
    """Choices, and where there are too few, random ones behind them."""
    rest = np.random.default_rng(seed).permutation(np.setdiff1d(np.arange(len(seen.stream_y)), rows))
    return np.concatenate([rows, rest[: most - len(rows)]])


def _figures(seen: Split, before: Labels, told: dict[int, _Answers], wanted: float) -> dict[str, float | None]:
    """All columns of one method."""
    right, new = {b: it.test == seen.test_y for b, it in told.items()}, seen.is_new
    last = told[max(told)]
    never = np.ones(len(seen.stream_y), bool)
    never[last.asked] = False
    start = float((before == seen.test_y).mean())
    figures: dict[str, float | None] = {"before": start}
    figures |= {f"held_out_{b}": float(it.mean()) for b, it in right.items()}
    figures |= {f"new_{b}": _share(it, new) for b, it in right.items()}
    figures["gain"] = float(right[max(told)].mean()) - start
    figures["known"] = _share(right[max(told)], ~new)
    figures["stream"] = float((last.stream == seen.stream_y).mean())
    figures["never_asked"] = _share(last.stream == seen.stream_y, never)
    figures["control"] = start  # looked-up labels answer nothing that was never asked
    enough = [b for b in told if float(right[b].mean()) >= wanted]
    figures["labels_wanted"] = float(enough[0]) if enough else None
    figures["slots_wanted"] = float(told[enough[0]].slots) if enough else None
    figures["slots"] = float(last.slots)
    figures["changed"] = None if last.changed is None else float(sum(it.changed or 0 for it in told.values()))
    figures["seconds"] = last.seconds
    return figures


def _share(hits: npt.NDArray[np.bool_], among: npt.NDArray[np.bool_]) -> float | None:
    return float(hits[among].mean()) if among.any() else None


def _within(report: Report, low: float, high: float) -> Report:
    """Progress of a part."""
    return lambda step, share: report(step, low + (high - low) * share)


_NAMES = {
    "random": "random",
    "margin": "margin",
    "margin-rounds": "margin, in rounds",
    "k-center": "k-center",
    "unmatched-cover": "cover of the unmatched",
    "our-questions": "our questions",
    "probcover": "ProbCover",
    "probcover-best": "ProbCover, best radius",
}
_NOTE = "1,000 k-means prototypes of the same features; labelled examples join as they are."

PROTOCOL = Protocol(
    name="slot-update",
    title="Accuracy after an update",
    about=(
        "A model is fitted on two thirds of the training part without the new classes. A stream of the other third, "
        "with all classes and without labels, is then shown; a method may ask for the labels of some of it. Accuracy is "
        "measured on the same never-seen examples before and after, so no example that was taken out of the "
        "measurement makes a gain. *New* is the accuracy on the new classes alone. *Control* looks the asked labels up "
        "and learns nothing. *Never asked* is the stream without the asked examples, at the largest budget. "
        "*Changed answers* counts the inputs of stream and never-seen part that a slot matched before and whose answer "
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
    peers=tuple(name for name in _NAMES if name != "random"),
    defaults={
        "budgets": [50, 100, 200, 500],
        "held_out": [],
        "new_classes": True,
        "wanted": 0.95,
        "reach": 0.4,
    },
    run_seed=run_seed,
)
