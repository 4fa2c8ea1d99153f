"""The methods of the protocol *label-errors*: ours and the peers', on one data set with wrong labels."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

import backbones
from protocols.harness.encoders import make_encoder
from protocols.harness.protocol import Setting
from protocols.runs.label_errors import peers
from protocols.runs.label_errors.noise import Noisy
from protocols.runs.label_errors.peers import Probabilities, Ranking
from slots.errors import UsageError
from slots.features.preprocessing import Preprocessing
from slots.label_errors.detection import LabelErrors, score_labels
from slots.label_errors.evidence import n_displaced
from slots.label_errors.linear_verdicts import linear_log_probabilities
from slots.label_errors.training_dynamics import TrainingDynamicsConfig, record_training_dynamics, small_network
from slots.progress import Progress, part
from slots.shapes import RawInputs
from slots.training.config import TrainConfig
from slots.training.fitting import fit

Labels = npt.NDArray[np.int64]
_SLOTS = TrainConfig(epochs=4, slots_per_class=10)
_NO_LIST = np.zeros(0, np.int64)


@dataclass(frozen=True)
class RankedLabels:
    """A method's ranking of one case, the labels that are most likely wrong first, with its seconds."""

    method: str
    ranking: Ranking
    seconds: float
    ours: bool = False
    note: str = ""
    curve: bool = True


class NoisyCase:
    """Data with wrong labels, and what several methods share about them, each made when it is asked for."""

    def __init__(
        self,
        setting: Setting,
        x: RawInputs,
        y: Labels,
        seed: int,
        progress: Progress,
        *,
        folds: int = 5,
        neighbours: int = 20,
        long_folds: bool = False,
    ) -> None:
        self.setting, self.x, self.y, self.seed, self.progress = setting, x, y, seed, progress
        self.n_folds, self.n_neighbours, self.long_folds = folds, neighbours, long_folds
        self.learns = setting.model is None and _learns(setting.backbone)
        self._features: npt.NDArray[np.float32] | None = None
        self._near: npt.NDArray[np.int64] | None = None
        self.inputs = x if self.learns else self.features()
        self.preprocessing = Preprocessing.of(self.inputs)
        started = time.perf_counter()
        watched = record_training_dynamics(
            self._network(),
            self.inputs,
            y,
            config=TrainingDynamicsConfig(seed=seed, device=setting.device),
            progress=part(progress, 0.0, 0.35),
        )
        self.classifier = watched.classifier
        logs = torch.from_numpy(watched.log_probabilities)
        if not self.learns:
            logs = logs + torch.from_numpy(linear_log_probabilities(self.features().astype(np.float64), y, seed=seed))
        self.probabilities = logs.softmax(1).numpy()
        self.watch_s = time.perf_counter() - started
        self.found: LabelErrors = score_labels(self.probabilities, y)
        self.judged_s = time.perf_counter() - started

    def features(self) -> npt.NDArray[np.float32]:
        """What the peers see: features of the setting, learned from the wrong labels where they are learned."""
        if self._features is None:
            encoder = make_encoder(self.setting, self.x, self.y, self.seed, part(self.progress, 0.8, 0.85))
            self._features = encoder(self.x)
        return self._features

    def neighbours(self) -> npt.NDArray[np.int64]:
        """Nearest other examples on the features."""
        if self._near is None:
            self._near = peers.neighbours(self.features(), self.n_neighbours)
        return self._near

    def refit(self, fitted: Labels, held_out: Labels) -> Probabilities:
        """Probabilities of some examples by a network like the watched one, trained on others."""
        x, seed, setting = self.inputs, self.seed, self.setting
        if self.learns and not self.long_folds:
            encoder = make_encoder(replace(setting, cache=None), x[fitted], self.y[fitted], seed)
            return _softmax(encoder.logits(encoder(x[held_out])))
        config = TrainingDynamicsConfig(seed=seed, device=setting.device)
        network = record_training_dynamics(self._network(), x[fitted], self.y[fitted], config=config).classifier
        return _softmax(_outputs(network, self.preprocessing, x[held_out], setting.device))

    def n_displaced(self) -> npt.NDArray[np.int64]:
        """How many examples each one shuts out of slots that were fitted on the watched network's features."""
        network = self.classifier[0]  # type: ignore[index]
        features = _outputs(network, self.preprocessing, self.inputs, self.setting.device)
        config = replace(_SLOTS, seed=self.seed)
        model, _ = fit(features, self.y, config=config, progress=part(self.progress, 0.45, 0.5))
        return n_displaced(torch.from_numpy(features), self.y, model.head.weights.detach(), model.head.labels)

    def facts(self, noisy: Noisy, y: Labels) -> dict[str, Any]:
        """How well the noise itself was found: the number of errors, its matrix, and the true labels suggested."""
        return {
            "estimated_errors": self.found.n_errors,
            "noise_matrix": self.found.noise.round(4),
            "right_suggestions": float((self.found.suggested == y)[noisy.wrong].mean()),
        }

    def _network(self) -> nn.Module:
        torch.manual_seed(self.seed)
        if not self.learns:
            return small_network(self.preprocessing.shape[0])
        try:
            return backbones.build(self.setting.backbone, input_shape=self.preprocessing.shape)  # type: ignore[arg-type]
        except ValueError as error:
            raise UsageError(str(error)) from error


def ranked_labels(case: NoisyCase, skipped: dict[str, str]) -> Iterator[RankedLabels]:
    """Every method in the order of the table; what is not installed goes to ``skipped``."""
    ranking = Ranking(case.found.suspicion, case.found.listed())
    yield RankedLabels("slots: watched training", ranking, case.judged_s, True)
    started = time.perf_counter()
    damage = case.n_displaced().astype(np.float64)
    seconds = time.perf_counter() - started + case.watch_s
    yield RankedLabels(
        "slots: examples shut out of slots", Ranking(damage, _NO_LIST), seconds, True, "Evidence, not our ranking."
    )
    for name in case.setting.peers:
        if name.startswith("cleanlab") and not _installed("cleanlab"):
            skipped[name] = "not installed: pip install 'neural-slots[peers]'"
            continue
        case.progress(name, 0.5 + 0.5 * case.setting.peers.index(name) / len(case.setting.peers))
        yield from PEERS[name](case)
    rng = np.random.default_rng([case.seed, 1])
    yield RankedLabels("random", Ranking(rng.random(len(case.y)), _NO_LIST), 0.0)


def _cleanlab(
    name: str,
    make: Callable[[], Probabilities],
    case: NoisyCase,
    methods: Sequence[str],
    *,
    note: str = "",
    earlier_s: float = 0.0,
) -> Iterator[RankedLabels]:
    """Verdicts of cleanlab on some probabilities, one for each of its methods; making them counts."""
    words = {"self_confidence": "self-confidence", "normalized_margin": "normalised margin"}
    started = time.perf_counter()
    probabilities = make()
    made = earlier_s + time.perf_counter() - started
    for method in methods:
        started = time.perf_counter()
        ranking = peers.cleanlab(probabilities, case.y, method=method)  # type: ignore[arg-type]
        yield RankedLabels(f"{name}, {words[method]}", ranking, made + time.perf_counter() - started, note=note)


_BOTH = ("self_confidence", "normalized_margin")


def _folds(case: NoisyCase) -> Iterator[RankedLabels]:
    network = case.setting.backbone if case.learns else "hidden layer"
    alike = not case.learns or case.long_folds
    note = f"{case.n_folds} trainings, each {'in the way of ours' if alike else 'of 3 epochs, without shifts'}."

    def make() -> Probabilities:
        return peers.out_of_sample(
            case.refit,
            case.y,
            folds=case.n_folds,
            seed=case.seed,
            progress=lambda done: case.progress("cleanlab: folds", 0.5 + 0.3 * done),
        )

    yield from _cleanlab(f"cleanlab, {case.n_folds}-fold {network}", make, case, _BOTH, note=note)


def _of_watched(case: NoisyCase) -> Iterator[RankedLabels]:
    note = "Our answers noted in training, cleanlab's rule."
    yield from _cleanlab(
        "cleanlab, watched training", lambda: case.probabilities, case, _BOTH, note=note, earlier_s=case.watch_s
    )


def _of_neighbours(case: NoisyCase) -> Iterator[RankedLabels]:
    name = f"cleanlab, {case.n_neighbours} neighbours"
    case.features()
    yield from _cleanlab(name, lambda: peers.neighbour_shares(case.neighbours(), case.y), case, ("normalized_margin",))


def _of_logistic(case: NoisyCase) -> Iterator[RankedLabels]:
    note = "The features were learned with the labels under judgement." if case.learns else ""
    fit_predict = peers.logistic_regression(case.features(), case.y)

    def make() -> Probabilities:
        return peers.out_of_sample(fit_predict, case.y, folds=case.n_folds, seed=case.seed)

    yield from _cleanlab(
        f"cleanlab, {case.n_folds}-fold logistic regression", make, case, ("self_confidence",), note=note
    )


def _disagreement(case: NoisyCase) -> Iterator[RankedLabels]:
    case.features()
    started = time.perf_counter()
    ranking = peers.disagreement(case.neighbours(), case.y)
    yield RankedLabels(f"disagreement of {case.n_neighbours} neighbours", ranking, time.perf_counter() - started)


def _nearest(case: NoisyCase) -> Iterator[RankedLabels]:
    case.features()
    started = time.perf_counter()
    ranking = peers.other_is_nearest(case.neighbours(), case.y)
    seconds = time.perf_counter() - started
    note = "Yes or no, so its average precision is that of one step."
    yield RankedLabels("nearest has another label", ranking, seconds, note=note, curve=False)


PEERS: dict[str, Callable[[NoisyCase], Iterator[RankedLabels]]] = {
    "cleanlab-folds": _folds,
    "cleanlab-watched": _of_watched,
    "cleanlab-neighbours": _of_neighbours,
    "cleanlab-logistic": _of_logistic,
    "neighbours": _disagreement,
    "nearest": _nearest,
}


def _learns(backbone: str) -> bool:
    return backbone not in {"none", "pixels"} and not backbones.is_network_name(backbone)


def _installed(name: str) -> bool:
    from importlib.util import find_spec

    return find_spec(name) is not None


def _softmax(logits: npt.NDArray[np.float32]) -> Probabilities:
    found: Probabilities = torch.from_numpy(logits).double().softmax(1).numpy()
    return found


@torch.no_grad()
def _outputs(network: nn.Module, preprocessing: Preprocessing, x: RawInputs, device: str) -> npt.NDArray[np.float32]:
    """What a network in evaluation mode makes of raw inputs."""
    parts = [network(preprocessing(x[i : i + 128], device)).float().cpu() for i in range(0, len(x), 128)]
    found: npt.NDArray[np.float32] = torch.cat(parts).numpy()
    return found
