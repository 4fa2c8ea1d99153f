"""Who answers and who detects in the `adversarial` protocol, each with what an attack on it follows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

from protocols.harness.encoders import Features
from protocols.harness.protocol import Setting
from protocols.runs.adversarial.peers import all_neighbours, class_k_means, energy, max_softmax, nearest_distance
from protocols.runs.adversarial.pgd import Objective, margin
from protocols.runs.adversarial.surrogates import (
    centre_scores,
    class_margins,
    disagreement,
    novelty_score,
    pooled_scores,
    soft_slot_margins,
    wrongly_matched,
)
from protocols.runs.adversarial.targets import AttackTargets
from slots.head.hashing import IncrementalNeuralHashing

Map = Callable[[Tensor], Tensor]
"""Images, or feature rows, to numbers, differentiable."""

Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Contender:
    """A classifier under attack, and the objective that attacks on it climb.

    Parameters
    ----------
    method : str
        As the table names it.
    wrong : callable
        ``wrong(images, labels)``: above zero where the answer is wrong, differentiable.
    answers : callable
        Images to labels, -1 where no answer is given: the hard decision that counts.
    """

    method: str
    wrong: Callable[[Tensor, Tensor], Tensor]
    answers: Callable[[Tensor], Labels]
    ours: bool = False
    note: str = ""

    def against(self, labels: Tensor) -> Objective:
        """What an attack makes large."""
        return lambda images: self.wrong(images, labels)


@dataclass(frozen=True)
class Detector:
    """A score of images, higher = more suspicious, and one that an attack can follow."""

    method: str
    score: Map
    smooth: Map
    ours: bool = False
    note: str = ""


def contenders_of(task: AttackTargets, setting: Setting, *, slots: int, neighbours: int) -> list[Contender]:
    """The undefended network first: what is transferred to the others is made on it."""
    found = [_plain("linear layer, undefended", task.features, task.linear, note=task.network)]
    spaces: list[tuple[str, Map, IncrementalNeuralHashing, Features]] = [
        ("", task.features, task.head, task.train_features)
    ]
    if not task.on_pixels:
        spaces.append((" on pixels", task.pixels, task.pixel_head, task.train_pixels))
    for where, space, head, rows in spaces:
        found += ours_on(where, space, head, task.n_classes)
        if "1-nn" in setting.peers:
            everyone = all_neighbours(rows, task.y_train, most=neighbours, seed=task.seed)
            note = f"{len(everyone.rows):,} prototypes."
            found.append(_plain(f"1 nearest{where}", space, everyone, note=note))
        if "k-means" in setting.peers:
            found.append(
                _plain(
                    f"k-means prototypes{where}",
                    space,
                    class_k_means(rows, task.y_train, count=slots, seed=task.seed),
                    note=f"At most {slots:,} prototypes.",
                )
            )
    return found


def _plain(method: str, space: Map, scores: Map, *, note: str = "", ours: bool = False) -> Contender:
    """The class of largest score, attacked by its margin."""

    def wrong(images: Tensor, labels: Tensor) -> Tensor:
        return margin(scores(space(images)), labels)

    def answers(images: Tensor) -> Labels:
        found: Labels = scores(space(images)).argmax(1).numpy()
        return found

    return Contender(method, wrong, answers, ours, note)


def ours_on(where: str, space: Map, head: IncrementalNeuralHashing, n_classes: int) -> list[Contender]:
    """The pooled answer, that of the nearest centre, and those of slots that match, nothing else being answered."""
    margins = class_margins(head, n_classes)

    def wrong(images: Tensor, labels: Tensor) -> Tensor:
        return wrongly_matched(margins(space(images)), labels)

    def answers(images: Tensor) -> Labels:
        found = head.predict(space(images))
        return np.where(found.matched, found.labels, -1)

    note = f"{head.n_slots} slots."
    return [
        _plain(f"slots{where}: pooled answer", space, pooled_scores(head, n_classes), note=note, ours=True),
        _plain(f"slots{where}: nearest centre", space, centre_scores(head, n_classes), note=note, ours=True),
        Contender(f"slots{where}: matched answers only", wrong, answers, True, note + " Refuses what no slot matches."),
    ]


def detectors_of(task: AttackTargets, setting: Setting) -> list[Detector]:
    """Scores that are to tell attacked images from clean ones."""
    linear: Map = lambda images: task.linear(task.features(images))  # noqa: E731
    depth = soft_slot_margins(task.head)
    outside: Map = lambda images: -depth(task.features(images)).amax(1)  # noqa: E731
    novel = novelty_score(task.novelty)
    found = [
        _same("slots: novelty score", lambda images: novel(task.features(images))),
        _same("slots: radians outside the nearest caps", outside),
    ]
    pairs = [
        ("slots: disagreement", disagreement(linear, _on(task.features, pooled_scores(task.head, task.n_classes))))
    ]
    if not task.on_pixels:
        scores = pooled_scores(task.pixel_head, task.n_classes)
        pairs.append(("slots: disagreement with slots on pixels", disagreement(linear, _on(task.pixels, scores))))
    for name, apart in pairs:
        found.append(_same(name, apart))
        found.append(Detector(f"{name}, yes or no", _positive(apart), apart, ours=True))
    for name, make in (("max-softmax", max_softmax), ("energy", energy)):
        if name in setting.peers:
            found.append(_same(name.replace("-", " "), _on(task.features, make(task.linear)), ours=False))
    if "k-means" in setting.peers:
        near = nearest_distance(class_k_means(task.train_features, task.y_train, count=1000, seed=task.seed))
        found.append(_same("distance to the nearest k-means prototype", _on(task.features, near), ours=False))
    return found


def _positive(score: Map) -> Map:
    return lambda images: (score(images) > 0).float()


def _on(space: Map, scores: Map) -> Map:
    return lambda images: scores(space(images))


def _same(method: str, score: Map, *, ours: bool = True) -> Detector:
    return Detector(method, score, score, ours)
