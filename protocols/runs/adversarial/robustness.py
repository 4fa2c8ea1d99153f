"""The `robustness` protocol: slots trained for certificates beside slots and prototypes that were not."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from protocols.harness.outcome import Column, Curve, Row, SeedOutcome
from protocols.harness.protocol import Protocol, Setting
from protocols.runs.adversarial.certificates import nearest_prototype_radius
from protocols.runs.adversarial.contenders import Contender
from protocols.runs.adversarial.defended import BOX, Defended, RobustTask, answerers, prepare_robust
from protocols.runs.adversarial.pgd import pgd
from slots.errors import UsageError
from slots.progress import Progress, part
from slots.robust.certificate import certify_rows, pooled_slots
from slots.robust.config import Norm
from slots.robust.nearest_slot import Method, nearest_slot_radii

_L2 = {"l2_05": 0.5, "l2_10": 1.0, "l2_158": 1.58, "l2_20": 2.0}
_LINF = {"linf_05": 0.05, "linf_10": 0.1, "linf_20": 0.2, "linf_30": 0.3}
_GROUPS: tuple[tuple[str, Norm, Method], ...] = (
    ("certified, l2, by pairs", "l2", "pair"),
    ("certified, l2, pixels in [0, 1]", "l2", "box"),
    ("certified, linf, pixels in [0, 1]", "linf", "box"),
)
_MATCHES: dict[Norm, str] = {
    "l2": "certified with matches, l2, pixels in [0, 1]",
    "linf": "certified with matches, linf, pixels in [0, 1]",
}
_RADII = np.linspace(0, 4, 41)
_BLOCK = 250


def run_seed(setting: Setting, seed: int, progress: Progress) -> SeedOutcome:
    """Fit, certify the test images, and attack some of them."""
    option = _options(setting)
    task = prepare_robust(setting, seed, option, part(progress, 0.0, 0.6))
    rows, curves = _certified(task, option["examples"], part(progress, 0.6, 0.75))
    sizes = option["eps"]
    for place, eps in enumerate(sizes):
        rows += attacked_rows(task, eps, option, seed, part(progress, 0.75 + 0.25 * place / len(sizes), 1.0))
    facts = {f"seconds of the fit: {it.name}": round(it.seconds, 1) for it in task.defended}
    return SeedOutcome(rows, curves, facts)


def _options(setting: Setting) -> dict[str, Any]:
    option = {key: PROTOCOL.option(setting, key) for key in PROTOCOL.defaults}
    sizes = sorted(set(option["eps"]))
    if not sizes or not 0 < sizes[0] <= sizes[-1] <= 1:
        raise UsageError(f"`eps` must be a list of numbers in (0, 1], got {option['eps']}. Try [0.1,0.2].")
    lowest = {"examples": 10, "certified": 10, "steps": 1, "restarts": 1, "slots": 10, "train": 100, "epochs": 0}
    for key, low in (lowest | {"neighbours": 10}).items():
        if option[key] < low:
            raise UsageError(f"`{key}` must be >= {low}, got {option[key]}. Leave it out for {PROTOCOL.defaults[key]}.")
    return option | {"eps": sizes}


def _certified(task: RobustTask, n_attacked: int, progress: Progress) -> tuple[list[Row], list[Curve]]:
    """Shares that are right and certified: of the nearest slot, and of as many images as are attacked with matches."""
    rows, curves = list[Row](), list[Curve]()
    right, inputs = task.labels.numpy(), task.rows.double().numpy()
    for place, it in enumerate(task.defended):
        slots = pooled_slots(it.head)
        for step, (group, norm, method) in enumerate(_GROUPS):
            progress(f"certificates: {it.name}", (place + step / len(_GROUPS)) / len(task.defended))
            found = nearest_slot_radii(inputs, slots, norm=norm, box=BOX, method=method)
            safe = found.labels == right
            rows.append(_row(f"{it.name}: nearest slot", safe, found.radii, norm, group, note=it.note))
            if group == _GROUPS[1][0]:
                curves.append(_curve(it.name, safe, found.radii))
        rows += _with_matches(it, task, n_attacked)
    for name, prototypes in task.prototypes.items():
        radii = nearest_prototype_radius(task.rows, task.labels, prototypes.rows, prototypes.labels).numpy()
        title = "1 nearest" if name == "1-nn" else "k-means prototypes"
        note = f"{len(prototypes.rows):,} prototypes."
        rows.append(_row(title, radii > 0, radii, "l2", _GROUPS[0][0], note=note, ours=False))
    order = [group for group, _, _ in _GROUPS] + list(_MATCHES.values())
    return sorted(rows, key=lambda row: order.index(row.group)), curves


def _with_matches(it: Defended, task: RobustTask, n: int) -> list[Row]:
    """The same of the model's answers, matches included, and of never being matched wrongly."""
    rows, right = list[Row](), task.labels[:n].numpy()
    for norm, group in _MATCHES.items():
        found = certify_rows(it.head, task.rows[:n].double(), norm=norm, box=BOX, method="box")
        answered = found.prediction.labels == right
        never = np.where(answered, found.vouched_radii, 0.0)
        rows.append(_row(f"{it.name}: the model's answer", answered, found.radii, norm, group, note=it.note))
        refused = answered | ~found.prediction.matched
        rows.append(_row(f"{it.name}: never matched wrongly", refused, never, norm, group, note=it.note))
    return rows


def _row(method: str, safe: Any, radii: Any, norm: Norm, group: str, *, note: str, ours: bool = True) -> Row:
    sizes = _L2 if norm == "l2" else _LINF
    figures = {key: float((safe & (radii > at)).mean()) for key, at in sizes.items()}
    return Row(method, figures | {"clean": float(safe.mean())}, ours, group, note)


def _curve(method: str, safe: Any, radii: Any) -> Curve:
    shares = [float((safe & (radii > at)).mean()) for at in _RADII]
    title, label = "Certified accuracy, pixels in [0, 1]", "certified right"
    return Curve(title, method, _RADII.tolist(), shares, x_label="L2 radius", y_label=label, ours=True)


def attacked_rows(task: RobustTask, eps: float, option: dict[str, Any], seed: int, progress: Progress) -> list[Row]:
    """Each answerer under the attack that knows its rule.

    Parameters
    ----------
    task : RobustTask
        Who answers what.
    eps : float
        Largest change of a pixel.
    option : dict
        ``examples``, ``steps`` and ``restarts``.
    seed : int
        Of the random starts.
    progress : callable
        Told the progress.
    """
    n = min(option["examples"], len(task.rows))
    images, right = task.rows[:n, None, None].float(), task.labels[:n]
    found, rows = answerers(task, eps), list[Row]()
    for place, it in enumerate(found):
        progress(f"eps {eps:g}: {it.method}", place / len(found))
        moved = _attack(it, images, right, eps=eps, option=option, seed=seed)
        clean, answers = it.answers(images), it.answers(moved)
        figures = {
            "answered": float((clean >= 0).mean()),
            "clean": float((clean == right.numpy()).mean()),
            "attacked": float((answers == right.numpy()).mean()),
            "wrong": float(((answers != right.numpy()) & (answers >= 0)).mean()),
        }
        rows.append(Row(it.method, figures, it.ours, f"attacked, linf {eps:g}", it.note))
    return rows


def _attack(it: Contender, images: Tensor, right: Tensor, *, eps: float, option: dict[str, Any], seed: int) -> Tensor:
    """Of each image the point of largest objective over several starts."""
    parts = []
    for rows in (slice(i, i + _BLOCK) for i in range(0, len(images), _BLOCK)):
        objective = it.against(right[rows])
        best, highest = images[rows], torch.full((len(images[rows]),), -torch.inf)
        for start in range(option["restarts"]):
            generator = torch.Generator().manual_seed(1000 * seed + start)
            moved = pgd(images[rows], objective, eps=eps, steps=option["steps"], generator=generator)
            with torch.no_grad():
                reached = objective(moved)
            better = reached > highest
            best, highest = torch.where(better[:, None, None, None], moved, best), torch.maximum(highest, reached)
        parts.append(best)
    return torch.cat(parts)


PROTOCOL = Protocol(
    name="robustness",
    title="Certified slots",
    about=(
        "Slots on pixels, trained for certified radii in Euclidean length (l2) and by the largest pixel (linf), beside "
        "slots trained by cross-entropy and nearest prototypes. Certified: share of test images answered right that "
        "no change of that size, aimed or not, can change; by pairs: the nearest plane between two slots; pixels in "
        "[0, 1]: reached by images. Nearest slot: the label of the slot of largest cosine; the model's answer: its "
        "matches included; never matched wrongly: no slot of a wrong label can match, the answer may be refused. "
        "Attacked: projected gradient descent from random starts along the margin of the rule that answers; "
        "answered: of the clean images; attacked: right under attack; wrong: wrong answers given under attack, where "
        "a refusal is none. Certified answers only: given where the radius, in the box, is larger than the attack, so "
        "that nobody can have made them from an image of another label's nearest slot; the attack raises that radius. "
        "Certified matches only: given where every image that near is matched with the same label."
    ),
    columns=(
        Column("answered", "answered", better=None),
        Column("clean", "clean"),
        Column("attacked", "attacked"),
        Column("wrong", "wrong", better="lower"),
        *(Column(key, f"at {size:g}") for key, size in (_L2 | _LINF).items()),
    ),
    headline="attacked",
    peers=("1-nn", "k-means"),
    defaults={
        "eps": [0.1, 0.2],
        "l2": 2.5,
        "linf": 0.3,
        "examples": 200,
        "certified": 1000,
        "steps": 40,
        "restarts": 2,
        "train": 60_000,
        "slots": 2000,
        "epochs": 0,
        "neighbours": 10_000,
    },
    run_seed=run_seed,
)
