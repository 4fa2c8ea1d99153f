"""The `adversarial` protocol: what attacks leave of the answers, who notices them, and what no attack can change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from protocols.harness.detection_metrics import quality
from protocols.harness.outcome import Column, Curve, Row, SeedOutcome
from protocols.harness.protocol import Protocol, Setting
from protocols.runs.adversarial.certificates import linear_radius, matched_radius, nearest_prototype_radius
from protocols.runs.adversarial.contenders import Contender, Detector, Labels, Map, contenders_of, detectors_of, ours_on
from protocols.runs.adversarial.peers import all_neighbours, class_k_means
from protocols.runs.adversarial.pgd import pgd, selective_pgd, sign_noise
from protocols.runs.adversarial.targets import AttackTargets, prepare
from slots.errors import UsageError
from slots.head.similarities import normalize
from slots.progress import Progress, part

_RADII = np.linspace(0, 4, 41)
_SHOWN = {"certified_05": 0.5, "certified_10": 1.0, "certified_20": 2.0}
_BEYOND = 0.5  # every image can become plain grey: whoever still answers right hides its gradients
_BLOCK = 250


def run_seed(setting: Setting, seed: int, progress: Progress) -> SeedOutcome:
    """Attack everything on the same images, then certify."""
    option = _options(setting)
    task = prepare(
        setting,
        seed,
        examples=option["examples"],
        train=option["train"],
        slots=option["slots"],
        epochs=option["epochs"],
        progress=part(progress, 0.0, 0.3),
    )
    contenders = contenders_of(task, setting, slots=option["slots"], neighbours=option["neighbours"])
    detectors = detectors_of(task, setting)
    rows: list[Row] = []
    robust: dict[str, list[float]] = {it.method: [_accuracy(it, task.images, task)] for it in contenders}
    sizes = option["eps"]
    for place, eps in enumerate(sizes):

        def told(step: str, share: float, place: int = place, eps: float = eps) -> None:
            progress(f"eps {eps:g}: {step}", 0.3 + 0.6 * (place + share) / len(sizes))

        size = _Size(task, eps, option["steps"], seed)
        rows += size.rows(contenders, detectors, told)
    for row in rows:
        if row.method in robust and row.group.startswith("answers"):
            robust[row.method].append(row.figures["attacked"] or 0.0)
    progress("certificates", 0.92)
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
    sizes = sorted(set(option["eps"]))
    if not sizes or not 0 < sizes[0] <= sizes[-1] <= 1:
        raise UsageError(f"`eps` must be a list of numbers in (0, 1], got {option['eps']}. Try [0.1,0.2,0.3].")
    for key, low in (("examples", 10), ("steps", 1), ("slots", 10), ("train", 100), ("epochs", 0), ("neighbours", 10)):
        if option[key] < low:
            raise UsageError(f"`{key}` must be >= {low}, got {option[key]}. Leave it out for {PROTOCOL.defaults[key]}.")
    return option | {"eps": sizes}


@dataclass(frozen=True)
class _Size:
    """Attacks of one size on one task."""

    task: AttackTargets
    eps: float
    steps: int
    seed: int

    def rows(self, contenders: Sequence[Contender], detectors: Sequence[Detector], told: Progress) -> list[Row]:
        """Every answerer attacked, and every detector beside its control; the first answerer is the network."""
        network, rows = contenders[0], []
        noisy = sign_noise(self.task.images, self.eps, torch.Generator().manual_seed(self.seed))
        transferred = self.attack(network)
        for number, it in enumerate(contenders):
            told(it.method, 0.5 * number / len(contenders))
            attacked = transferred if it is network else self.attack(it)
            figures = {
                "clean": _accuracy(it, self.task.images, self.task),
                "noise": _accuracy(it, noisy, self.task),
                "attacked": _accuracy(it, attacked, self.task),
                "wrong": _wrong(it, attacked, self.task),
                "transfer": None if it is network else _accuracy(it, transferred, self.task),
            }
            rows.append(Row(it.method, figures, it.ours, f"answers, eps {self.eps:g}", it.note))
        followed, evading = None, transferred
        for number, detector in enumerate(detectors):
            told(detector.method, 0.5 + 0.5 * number / len(detectors))
            if detector.smooth is not followed:  # a yes or no is attacked through the score beside it
                followed, evading = detector.smooth, self.evade(detector.smooth, network, transferred)
            seen = _detection(detector, network, self.task, noisy=noisy, attacked=transferred, evading=evading)
            rows.append(Row(detector.method, seen, detector.ours, f"detection, eps {self.eps:g}", detector.note))
        return rows

    def attack(self, contender: Contender) -> Tensor:
        """The attacked images."""
        parts = []
        for rows in _blocks(len(self.task.images)):
            generator = torch.Generator().manual_seed(self.seed)
            objective = contender.against(self.task.labels[rows])
            parts.append(pgd(self.task.images[rows], objective, eps=self.eps, steps=self.steps, generator=generator))
        return torch.cat(parts)

    def evade(self, smooth: Map, network: Contender, attacked: Tensor) -> Tensor:
        """Images made against the network and a detector; of each the plain attack's where that evades better."""
        parts = []
        for rows in _blocks(len(self.task.images)):
            generator = torch.Generator().manual_seed(self.seed)
            fool, images, plain = network.against(self.task.labels[rows]), self.task.images[rows], attacked[rows]
            found = selective_pgd(images, fool, smooth, eps=self.eps, steps=self.steps, generator=generator)
            with torch.no_grad():
                better = (fool(plain) > 0) & ((fool(found) <= 0) | (smooth(plain) < smooth(found)))
            parts.append(torch.where(better[:, None, None, None], plain, found))
        return torch.cat(parts)


def _detection(
    detector: Detector, network: Contender, task: AttackTargets, *, noisy: Tensor, attacked: Tensor, evading: Tensor
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


def _certified(
    task: AttackTargets, setting: Setting, seed: int, option: dict[str, Any]
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
        objective = contender.against(right)
        moved = pgd(images, objective, eps=inside[kept], steps=option["steps"], generator=generator, norm="l2")
        facts["of these, answers changed"] = int((_answers(contender, moved) != right.numpy()).sum())
    return table, curves, facts


def _beyond(task: AttackTargets, contenders: Sequence[Contender], steps: int, seed: int) -> dict[str, Any]:
    """Right answers where an attack may do anything; more than chance would mean that gradients mislead it."""
    few = task.few(100)
    found = {}
    for contender in contenders:
        attacked = _Size(few, _BEYOND, 2 * steps, seed).attack(contender)
        found[contender.method] = _accuracy(contender, attacked, few)
    return {f"right answers at eps {_BEYOND:g}": found}


@torch.no_grad()
def _answers(contender: Contender, images: Tensor) -> Labels:
    return np.concatenate([contender.answers(images[rows]) for rows in _blocks(len(images))])


def _accuracy(contender: Contender, images: Tensor, task: AttackTargets) -> float:
    return float((_answers(contender, images) == task.labels.numpy()).mean())


def _wrong(contender: Contender, images: Tensor, task: AttackTargets) -> float:
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
        "eps": [0.1, 0.2, 0.3],
        "steps": 40,
        "examples": 200,
        "train": 20_000,
        "slots": 1000,
        "neighbours": 10_000,
        "epochs": 4,
    },
    run_seed=run_seed,
    backbone="cnn",
)
