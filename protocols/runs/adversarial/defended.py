"""Who answers in the `robustness` protocol: slots trained for certificates, slots that were not, and prototypes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

import backbones
from protocols.harness.encoders import Labels
from protocols.harness.protocol import Setting
from protocols.recipes.recipes import Recipe, for_certificates
from protocols.runs.adversarial.contenders import Contender
from protocols.runs.adversarial.peers import Prototypes, all_neighbours, class_k_means
from protocols.runs.adversarial.pgd import margin
from protocols.runs.adversarial.surrogates import class_margins, wrongly_matched
from slots.errors import UsageError
from slots.features.source import FeatureSource, first_views
from slots.head.hashing import IncrementalNeuralHashing
from slots.head.similarities import normalize
from slots.progress import Progress, part
from slots.robust.config import RobustConfig
from slots.robust.hinge import decisive_pairs
from slots.robust.matched_slots import matched_radii
from slots.robust.nearest_slot import LabelledSlots, nearest_slot_radii
from slots.training.config import TrainConfig
from slots.training.fitting import fit
from slots.training.robust_slots import SHARP

BOX = (0.0, 1.0)
_DEEP = 0.1  # radians of a margin that an attack weighs like one whole radius


@dataclass(frozen=True)
class Defended:
    """A slot head under attack.

    Parameters
    ----------
    name : str
        As the table names it.
    head : IncrementalNeuralHashing
        On pixels; what no slot matches is answered by the nearest slot.
    trained_for : RobustConfig or None
        What it was trained for; None for cross-entropy.
    seconds : float
        Of its fit.
    """

    name: str
    head: IncrementalNeuralHashing
    trained_for: RobustConfig | None
    seconds: float

    @property
    def note(self) -> str:
        """What a reader needs to compare fairly."""
        return f"{self.head.n_slots:,} slots, fitted in {self.seconds:.0f} s."


@dataclass(frozen=True)
class RobustTask:
    """Pixels of test images in [0, 1], their labels, and those who answer.

    Parameters
    ----------
    rows : float tensor of shape (example, feature)
        Test images that are certified; the first of them are attacked.
    labels : int64 tensor of shape (example,)
        From 0 to the number of classes - 1.
    defended : list of Defended
        Ours.
    prototypes : dict
        Peers by name.
    n_classes : int
        Number of classes.
    """

    rows: Tensor
    labels: Tensor
    defended: list[Defended]
    prototypes: dict[str, Prototypes]
    n_classes: int


def prepare_robust(setting: Setting, seed: int, option: dict[str, int | float], progress: Progress) -> RobustTask:
    """Fit all that is attacked, on the same training examples.

    Raises
    ------
    UsageError
        If the data is no labelled images, or the features are not pixels.
    """
    data, rng = setting.data, np.random.default_rng(seed)
    known, tested = data.y_train >= 0, data.y_test >= 0
    if data.kind != "images" or setting.backbone != "pixels" or setting.model is not None or tested.sum() < 20:
        raise UsageError(
            f"`data` must be labelled images and the backbone pixels, got {data.kind} and {setting.backbone}. No "
            "radius holds behind a network."
        )
    classes = np.unique(data.y_train[known])
    tested &= np.isin(data.y_test, classes)
    used = np.sort(rng.permutation(np.flatnonzero(known))[: int(option["train"])])
    chosen = rng.permutation(np.flatnonzero(tested))[: int(option["certified"])]
    y = np.searchsorted(classes, data.y_train[used])
    wanted: list[tuple[str, RobustConfig | None]] = [
        (f"slots, linf:{option['linf']:g}", RobustConfig("linf", float(option["linf"]))),
        (f"slots, l2:{option['l2']:g}", RobustConfig("l2", float(option["l2"]))),
        ("slots, cross-entropy", None),
    ]
    defended, rows, train_rows = [], torch.zeros(0), np.zeros((0, 0), np.float32)
    for place, (name, robust) in enumerate(wanted):
        started, told = time.monotonic(), part(progress, place / len(wanted), (place + 1) / len(wanted))
        config = TrainConfig(slots_per_class=int(option["slots"]) // len(classes), seed=seed)
        if robust is not None:
            recipe = for_certificates(Recipe(), robust.norm, images=True)
            config = replace(recipe.train, slots_per_class=config.slots_per_class, seed=seed, robust=robust)
        if option["epochs"]:
            config = replace(config, epochs=int(option["epochs"]))
        height, width, channels = data.shape
        pixels = backbones.build("pixels", input_shape=(channels, height, width))
        model, _ = fit(data.x_train[used], y, backbone=pixels, config=config, progress=told)
        model.head.requires_grad_(False)
        model.head.beta = SHARP
        defended.append(Defended(name, model.head, robust, time.monotonic() - started))
        if not len(rows):
            rows = first_views(FeatureSource(model.featurizer, data.x_test[chosen], keep=False))
            train_rows = first_views(FeatureSource(model.featurizer, data.x_train[used], keep=False)).numpy()
    peers: dict[str, Callable[[], Prototypes]] = {
        "1-nn": lambda: all_neighbours(train_rows, y, most=int(option["neighbours"]), seed=seed),
        "k-means": lambda: class_k_means(train_rows, y, count=int(option["slots"]), seed=seed),
    }
    prototypes = {name: make() for name, make in peers.items() if name in setting.peers}
    labels = torch.from_numpy(np.searchsorted(classes, data.y_test[chosen]))
    return RobustTask(rows, labels, defended, prototypes, len(classes))


def answerers(task: RobustTask, eps: float) -> list[Contender]:
    """Who answers images that may have been changed by at most ``eps`` a pixel, and what attacks on each follow."""
    found: list[Contender] = []
    for it in task.defended:
        scores = nearest_scores(it.head, task.n_classes)
        found.append(_by_largest(f"{it.name}: nearest slot", scores, note=it.note, ours=True))
        found.append(_matched(it, task.n_classes))
        if it.trained_for is not None:
            found.append(_certified(it, task.n_classes, eps, matched=False))
            found.append(_certified(it, task.n_classes, eps, matched=True))
            found.append(_certified_match(it, task.n_classes, eps))
    for name, prototypes in task.prototypes.items():
        title = "1 nearest" if name == "1-nn" else "k-means prototypes"
        found.append(_by_largest(title, prototypes, note=f"{len(prototypes.rows):,} prototypes."))
    return found


def nearest_scores(head: IncrementalNeuralHashing, n_classes: int) -> Callable[[Tensor], Tensor]:
    """Largest cosine to a weight of each class, shape (example, class)."""
    weights, labels = normalize(head.weights.detach()), head.labels
    keep = head.pooled if bool(head.pooled.any()) else torch.ones_like(head.pooled)
    weights, labels = weights[keep], labels[keep]

    def scores(rows: Tensor) -> Tensor:
        found = normalize(rows) @ weights.T
        return torch.stack([found.masked_fill(labels != it, -2.0).amax(1) for it in range(n_classes)], dim=1)

    return scores


def _by_largest(method: str, scores: Callable[[Tensor], Tensor], *, note: str, ours: bool = False) -> Contender:
    def answers(images: Tensor) -> Labels:
        found: Labels = scores(images.flatten(1)).argmax(1).numpy()
        return found

    return Contender(method, lambda x, y: margin(scores(x.flatten(1)), y), answers, ours, note)


def _matched(it: Defended, n_classes: int) -> Contender:
    margins = class_margins(it.head, n_classes)

    def answers(images: Tensor) -> Labels:
        found = it.head.predict(images.flatten(1))
        return np.where(found.matched, found.labels, -1)

    def wrong(images: Tensor, labels: Tensor) -> Tensor:
        return wrongly_matched(margins(images.flatten(1)), labels)

    return Contender(f"{it.name}: matched answers only", wrong, answers, True, it.note)


def _certified(it: Defended, n_classes: int, eps: float, *, matched: bool) -> Contender:
    """Answers whose certificate is at least as large as the attack; with ``matched`` only those that a slot matches."""
    keep = it.head.pooled if bool(it.head.pooled.any()) else torch.ones_like(it.head.pooled)
    weights, labels = normalize(it.head.weights.detach())[keep], it.head.labels[keep]
    slots = LabelledSlots.of(weights, labels)
    scores, margins = nearest_scores(it.head, n_classes), class_margins(it.head, n_classes)

    def answers(images: Tensor) -> Labels:
        rows = images.flatten(1)
        found = nearest_slot_radii(rows.double().numpy(), slots, norm="linf", box=BOX, method="box")
        sure = found.radii > eps
        if matched:
            told = it.head.predict(rows)
            sure &= told.matched & (told.labels == found.labels)
        return np.where(sure, found.labels, -1)

    def wrong(images: Tensor, right: Tensor) -> Tensor:
        """The radius of the best wrong class by pairs, in units of the attack, less what is asked for."""
        rows = images.flatten(1)
        with torch.no_grad():
            wanted = scores(rows).scatter(1, right[:, None], -torch.inf).argmax(1)
            own, rival = decisive_pairs(rows, wanted, weights, labels, "linf")
        apart = weights[own] - weights[rival]
        reach = (rows * apart).sum(1) / apart.abs().sum(1).clamp_min(1e-12) / eps - 1
        if not matched:
            return reach
        depth = margins(rows)
        return torch.minimum(reach, (depth.gather(1, wanted[:, None])[:, 0] - _own(depth, right).clamp_min(0)) / _DEEP)

    title = "matched and certified answers only" if matched else "certified answers only"
    note = f"{it.note} Answers where no change of the size of the attack can reach another nearest slot."
    return Contender(f"{it.name}: {title}", wrong, answers, True, note)


def _certified_match(it: Defended, n_classes: int, eps: float) -> Contender:
    """Answers that are matched with their label wherever a change of the size of the attack leads."""
    caps, margins = it.head.caps(), class_margins(it.head, n_classes)

    def answers(images: Tensor) -> Labels:
        rows = images.flatten(1)
        told = it.head.predict(rows)
        some = np.flatnonzero(told.matched)
        radii = matched_radii(
            rows[some].double(), torch.from_numpy(told.labels[some]), caps, norm="linf", box=BOX
        ).stays.numpy()
        sure = some[radii > eps]
        found = np.full(len(rows), -1)
        found[sure] = told.labels[sure]
        return found

    def wrong(images: Tensor, right: Tensor) -> Tensor:
        """How deep the best wrong class lies, and half of its lead over the right one; the radius grows with it."""
        depth = margins(images.flatten(1))
        others = depth.scatter(1, right[:, None], -torch.inf).amax(1)
        return torch.minimum(others, (others - _own(depth, right)) / 2)

    note = f"{it.note} Answers that stay matched, with their label, through every change of the size of the attack."
    return Contender(f"{it.name}: certified matches only", wrong, answers, True, note)


def _own(depth: Tensor, right: Tensor) -> Tensor:
    found: Tensor = depth.gather(1, right[:, None])[:, 0]
    return found
