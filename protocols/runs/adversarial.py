"""The `adversarial` protocol: what attacks leave of the answers, who notices them, and what no attack can change."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from protocols.peers.attacks import all_neighbours, class_k_means
from protocols.runs.adversarial_methods import Contender, Detector, Labels, Map, contenders_of, detectors_of, ours_on
from protocols.runs.attacked import Attacked, prepare
from protocols.runs.attacks import pgd, selective_pgd, sign_noise
from protocols.runs.certificates import linear_radius, matched_radius, nearest_prototype_radius
from protocols.runs.ood_metrics import quality
from protocols.runs.outcome import Column, Curve, Row, SeedOutcome
from protocols.runs.protocol import Protocol, Report, Setting
from slots.errors import UsageError
from slots.matching import normalize

_RADII = np.linspace(0, 4, 41)
_SHOWN = {"certified_05": 0.5, "certified_10": 1.0, "certified_20": 2.0}
_BEYOND = 0.5  # every image can become plain grey: whoever still answers right hides its gradients
_BLOCK = 250


def run_seed(setting: Setting, seed: int, report: Report) -> SeedOutcome:
    """Attack everything on the same images, then certify."""
    option = _options(setting)
    task = prepare(
        setting,
        seed,
        examples=option["examples"],
        train=option["train"],
        slots=option["slots"],
        epochs=option["epochs"],
        report=lambda step, share: report(step, 0.3 * min(1.0, share)),
    )
    contenders = contenders_of(task, setting, slots=option["slots"], neighbours=option["neighbours"])
    detectors = detectors_of(task, setting)
    rows: list[Row] = []
    robust: dict[str, list[float]] = {it.method: [_accuracy(it, task.images, task)] for it in contenders}
    sizes = option["eps"]
    for place, eps in enumerate(sizes):
        done = 0.3 + 0.6 * place / len(sizes)

        def told(step: str, share: float, done: float = done, eps: float = eps) -> None:
            report(f"eps {eps:g}: {step}", done + 0.6 / len(sizes) * share)

        generator = torch.Generator().manual_seed(seed)
        noisy = sign_noise(task.images, eps, generator)
        attack = partial(_attack, task, eps=eps, steps=option["steps"], seed=seed)
        transferred = attack(contenders[0])
        evade = partial(
            _evading, network=contenders[0], task=task, attacked=transferred, eps=eps, steps=option["steps"], seed=seed
        )
        followed, evading = None, transferred
        for number, contender in enumerate(contenders):
            told(contender.method, 0.5 * number / len(contenders))
            attacked = transferred if number == 0 else attack(contender)
            figures = {
                "clean": _accuracy(contender, task.images, task),
                "noise": _accuracy(contender, noisy, task),
                "attacked": _accuracy(contender, attacked, task),
                "wrong": _wrong(contender, attacked, task),
            }
            if number:
                figures["transfer"] = _accuracy(contender, transferred, task)
            robust[contender.method].append(figures["attacked"])
            rows.append(Row(contender.method, figures, contender.ours, f"answers, eps {eps:g}", contender.note))
        for number, detector in enumerate(detectors):
            told(detector.method, 0.5 + 0.5 * number / max(1, len(detectors)))
            if detector.smooth is not followed:  # a yes or no is attacked through the score beside it
                followed = detector.smooth
                evading = evade(followed)
            figures = _detection(detector, contenders[0], task, noisy=noisy, attacked=transferred, evading=evading)
            rows.append(Row(detector.method, figures, detector.ours, f"detection, eps {eps:g}", detector.note))
    report("certificates", 0.92)
    certified, curves, facts = _certified(task, setting, seed, option)
    axes: dict[str, Any] = {"x_label": "eps", "y_label": "right under attack"}
    for it in contenders:
        curves.append(
            Curve("Right answers under attack", it.method, [0.0, *sizes], robust[it.method], ours=it.ours, **axes)
        )
    facts |= _beyond(task, contenders, option["steps"], seed)
    order = {"a": 0, "d": 1}
    rows.sort(key=lambda row: (order[row.group[0]], float(row.group.rsplit(" ", 1)[1])))
    return SeedOutcome([*rows, *certified], curves, facts)


def _options(setting: Setting) -> dict[str, Any]:
    option = {key: PROTOCOL.option(setting, key) for key in PROTOCOL.defaults}
    try:
        sizes = sorted({float(part) for part in str(option["eps"]).split(",")})
    except ValueError:
        sizes = []
    if not sizes or not 0 < sizes[0] <= sizes[-1] <= 1:
        raise UsageError(
            f"`eps` must be numbers in (0, 1] with commas between them, got {option['eps']!r}. Try 0.1,0.2,0.3."
        )
    for key, low in (("examples", 10), ("steps", 1), ("slots", 10), ("train", 100), ("epochs", 0), ("neighbours", 10)):
        if option[key] < low:
            raise UsageError(f"`{key}` must be >= {low}, got {option[key]}. Leave it out for {PROTOCOL.defaults[key]}.")
    return option | {"eps": sizes}


def _attack(task: Attacked, contender: Contender, *, eps: float, steps: int, seed: int) -> Tensor:
    """The attacked images, block by block."""
    parts = []
    for rows in _blocks(len(task.images)):
        generator = torch.Generator().manual_seed(seed)
        objective = partial(contender.wrong, labels=task.labels[rows])
        parts.append(pgd(task.images[rows], objective, eps=eps, steps=steps, generator=generator))
    return torch.cat(parts)


def _detection(
    detector: Detector, network: Contender, task: Attacked, *, noisy: Tensor, attacked: Tensor, evading: Tensor
) -> dict[str, float | None]:
    """How well the attack on the network is noticed: as it is, beside noise, and where it also evades the detector."""
    clean, usual = _scores(detector, task.images), _scores(detector, task.reference)
    threshold = float(np.quantile(usual, 0.95, method="inverted_cdf"))
    figures: dict[str, float | None] = {"control": quality(clean, _scores(detector, noisy)).auroc}
    for key, images in (("", attacked), ("_adaptive", evading)):
        scores = _scores(detector, images)
        fooled = _answers(network, images) != task.labels.numpy()
        figures["auroc" + key] = quality(clean, scores[fooled]).auroc if fooled.any() else None
        figures["evades" + key] = float((fooled & (scores <= threshold)).mean())
    return figures


def _evading(
    smooth: Map, network: Contender, task: Attacked, attacked: Tensor, *, eps: float, steps: int, seed: int
) -> Tensor:
    """Images made against the network and a detector at once; of each the plain attack's where that evades better."""
    parts = []
    for rows in _blocks(len(task.images)):
        generator = torch.Generator().manual_seed(seed)
        fool = partial(network.wrong, labels=task.labels[rows])
        images = task.images[rows]
        found = selective_pgd(images, fool, smooth, eps=eps, steps=steps, generator=generator)
        with torch.no_grad():
            plain = attacked[rows]
            better = (fool(plain) > 0) & ((fool(found) <= 0) | (smooth(plain) < smooth(found)))
        parts.append(torch.where(better[:, None, None, None], plain, found))
    return torch.cat(parts)


def _certified(
    task: Attacked, setting: Setting, seed: int, option: dict[str, Any]
) -> tuple[list[Row], list[Curve], dict[str, Any]]:
    """Certified radii on pixels, and an attack that must not succeed inside them."""
    head, rows, labels = task.pixel_head, task.pixels(task.images), task.labels
    radii = {
        "slots on pixels: matched answers only": matched_radius(rows, labels, head.caps()),
        "slots on pixels: nearest centre": nearest_prototype_radius(rows, labels, normalize(head.centres), head.labels),
    }
    if task.on_pixels:
        radii["linear layer, undefended"] = linear_radius(rows, labels, task.linear.weight, task.linear.bias)
    for name, make in (
        ("1-nn", partial(all_neighbours, most=option["neighbours"])),
        ("k-means", partial(class_k_means, count=option["slots"])),
    ):
        if name in setting.peers:
            found = make(task.train_pixels, task.y_train, seed=seed)
            shown = "1 nearest on pixels" if name == "1-nn" else "k-means prototypes on pixels"
            radii[shown] = nearest_prototype_radius(rows, labels, found.rows, found.labels)
    table, curves = [], []
    for method, radius in radii.items():
        ours = method.startswith("slots")
        figures: dict[str, float | None] = {key: float((radius > at).float().mean()) for key, at in _SHOWN.items()}
        figures |= {"clean": float((radius > 0).float().mean()), "median": float(radius.median())}
        table.append(Row(method, figures, ours, "certified, L2 on pixels", "Right, and certified beyond this radius."))
        shares = [float((radius > at).float().mean()) for at in _RADII]
        axes: dict[str, Any] = {"x_label": "L2 radius", "y_label": "certified right"}
        curves.append(Curve("Certified accuracy", method, _RADII.tolist(), shares, ours=ours, **axes))
    contender = ours_on("", task.pixels, head, task.n_classes)[-1]
    inside = radii["slots on pixels: matched answers only"].float() * 0.999
    kept = inside > 0
    facts: dict[str, Any] = {"certified images attacked inside their radius": int(kept.sum())}
    if kept.any():
        generator = torch.Generator().manual_seed(seed)
        images, right = task.images[kept], labels[kept]
        objective = partial(contender.wrong, labels=right)
        moved = pgd(images, objective, eps=inside[kept], steps=option["steps"], generator=generator, norm="l2")
        facts["of these, answers changed"] = int((_answers(contender, moved) != right.numpy()).sum())
    return table, curves, facts


def _beyond(task: Attacked, contenders: Sequence[Contender], steps: int, seed: int) -> dict[str, Any]:
    """Right answers where an attack may do anything; more than chance would mean that gradients mislead it."""
    few = task.few(100)
    found = {}
    for contender in contenders:
        attacked = _attack(few, contender, eps=_BEYOND, steps=2 * steps, seed=seed)
        found[contender.method] = _accuracy(contender, attacked, few)
    return {f"right answers at eps {_BEYOND:g}": found}


@torch.no_grad()
def _answers(contender: Contender, images: Tensor) -> Labels:
    return np.concatenate([contender.answers(images[rows]) for rows in _blocks(len(images))])


def _accuracy(contender: Contender, images: Tensor, task: Attacked) -> float:
    return float((_answers(contender, images) == task.labels.numpy()).mean())


def _wrong(contender: Contender, images: Tensor, task: Attacked) -> float:
    """Share of wrong answers given; a refusal is none."""
    found = _answers(contender, images)
    return float(((found != task.labels.numpy()) & (found >= 0)).mean())


@torch.no_grad()
def _scores(detector: Detector, images: Tensor) -> npt.NDArray[np.float64]:
    parts = [detector.score(images[rows]).double().numpy() for rows in _blocks(len(images))]
    return np.concatenate(parts)


def _blocks(n: int) -> list[slice]:
    return [slice(i, min(n, i + _BLOCK)) for i in range(0, n, _BLOCK)]


PROTOCOL = Protocol(
    name="adversarial",
    title="Attacks",
    about=(
        "Test images are changed by at most eps a pixel so that an answer becomes wrong: projected gradient descent "
        "from a random start, in white box through network and head, along the margin of the scores that decide; what "
        "counts is the hard decision. Noise: every pixel moved by eps up or down at random, as large as the attack and "
        "without its aim. Transfer: images made against the undefended linear layer. Wrong: wrong answers given, where "
        "a refusal is none. Detection: AUROC of attacked images that the linear layer gets wrong against clean ones; "
        "control: of noise against clean ones; adaptive: of an attack that, once the answer is wrong, lowers the "
        "detector's score; evades: images that are wrong and below the score that 5 % of other clean images exceed. "
        "Certified: share of test images answered right that no change of that Euclidean length, aimed or not, can "
        "change: a lower bound, on pixels."
    ),
    columns=(
        Column("clean", "clean"),
        Column("noise", "noise"),
        Column("transfer", "transfer"),
        Column("attacked", "attacked"),
        Column("wrong", "wrong", better="lower"),
        Column("auroc", "AUROC, attack"),
        Column("control", "AUROC, noise", better=None),
        Column("auroc_adaptive", "AUROC, adaptive"),
        Column("evades", "evades", better="lower"),
        Column("evades_adaptive", "evades, adaptive", better="lower"),
        Column("certified_05", "certified at 0.5"),
        Column("certified_10", "certified at 1"),
        Column("certified_20", "certified at 2"),
        Column("median", "median radius", "score"),
    ),
    headline="attacked",
    peers=("1-nn", "k-means", "max-softmax", "energy"),
    defaults={
        "eps": "0.1,0.2,0.3",
        "steps": 40,
        "examples": 300,
        "train": 20_000,
        "slots": 1000,
        "neighbours": 10_000,
        "epochs": 4,
    },
    run_seed=run_seed,
    backbone="cnn",
)
