"""Antitraining: neurons outside of the core are taught to say nothing, so that few neurons carry a layer.

Each round trains on the task, ranks a layer's neurons by their information, finds the core, and then antitrains the
others: the core is replaced by noise and the labels by random ones, so that all that can be learned from the others is
to ignore them. Weights that belong to the core, or lie before the layer, stay.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn
from torch.nn import functional

from backbones.checks import check_choice, check_count, check_share
from backbones.pruning.ablation import (
    NOISES,
    Batches,
    Statistics,
    check_batches,
    left_as_found,
    randomised,
    running_statistics,
)
from backbones.pruning.adjacent_layers import Surroundings, surroundings
from backbones.pruning.importance import CRITERIA, Core, core_set, neuron_information

SCHEDULES: Final = ("together", "cyclic")


@dataclass(frozen=True)
class AntitrainingConfig:
    """How to antitrain: rounds, learning rates, the rule of the core, and what is trained against.

    Parameters
    ----------
    rounds : int
        Rounds of training, core and antitraining (count, >= 1).
    epochs : int
        Passes over the training batches a round, on the task (count, >= 0).
    anti_epochs : int
        Passes a round with random labels, for each layer (count, >= 1).
    lr, anti_lr : float
        Adam's learning rate for the task, and for the antitraining.
    schedule : {"together", "cyclic"}
        With several layers: all of them in each round, the last first, or one a round in turn.
    criterion : {"sufficiency", "necessity"}
        See `backbones.pruning.importance.core_set`.
    share : float
        Of the accuracy that the core keeps, in (0, 1].
    noise : {"normal", "permuted"}
        What randomised neurons say; see `backbones.pruning.ablation.noise_like`.
    reach : {"consumer", "after"}
        Antitraining changes the layer's outgoing weights alone, or everything after the layer.
    protect : bool
        Outgoing weights of the core stay as they are.
    label_smoothing : float
        Of the task's loss, in [0, 1).
    seed : int
        Of all noise and random labels.
    """

    rounds: int = 10
    epochs: int = 1
    anti_epochs: int = 2
    lr: float = 1e-3
    anti_lr: float = 1e-2
    schedule: str = "together"
    criterion: str = "sufficiency"
    share: float = 0.95
    noise: str = "normal"
    reach: str = "consumer"
    protect: bool = True
    label_smoothing: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        check_count("rounds", self.rounds)
        check_count("epochs", self.epochs, least=0)
        check_count("anti_epochs", self.anti_epochs)
        check_choice("schedule", self.schedule, SCHEDULES)
        check_choice("criterion", self.criterion, CRITERIA)
        check_choice("noise", self.noise, NOISES)
        check_choice("reach", self.reach, ("consumer", "after"))
        check_share("share", self.share)
        if not (self.lr > 0 and self.anti_lr > 0):
            raise ValueError(f"`lr` and `anti_lr` must be above 0, got {self.lr} and {self.anti_lr}. 1e-3 is usual.")


@dataclass(frozen=True)
class Round:
    """One layer in one round, measured after the antitraining (in the control: after the training).

    Parameters
    ----------
    index : int
        Number of the round, from 0.
    layer : str
        Name of the layer.
    core : Core
        Its neurons by importance, and those of them that carry the answers.
    """

    index: int
    layer: str
    core: Core


@dataclass(frozen=True)
class AntitrainingReport:
    """Cores and accuracies of antitraining, beside those of the same training without it (the control).

    Parameters
    ----------
    rounds, control : tuple of Round
        With antitraining, and without: equal start, equal batches, equal numbers of training steps on the task.
    control_model : nn.Module
        The model trained without.
    """

    rounds: tuple[Round, ...]
    control: tuple[Round, ...]
    control_model: nn.Module

    def core(self, layer: str) -> Core:
        """The core of a layer when it was last looked at."""
        return _last(self.rounds, layer)

    def control_core(self, layer: str) -> Core:
        """The core of the same layer of the control."""
        return _last(self.control, layer)


def _last(rounds: tuple[Round, ...], layer: str) -> Core:
    found = [entry.core for entry in rounds if entry.layer == layer]
    if not found:
        seen = ", ".join(sorted({entry.layer for entry in rounds}))
        raise ValueError(f"`layer` must be one of {seen}, got {layer!r}. Only antitrained layers have a core.")
    return found[-1]


def antitrain(
    model: nn.Module,
    layers: Sequence[str],
    batches: Batches,
    *,
    measured_on: Batches | None = None,
    config: AntitrainingConfig | None = None,
) -> AntitrainingReport:
    """Train a classifier so that few neurons of some layers carry it, and a copy without antitraining beside it.

    Parameters
    ----------
    model : nn.Module
        From inputs to logits; changed in place. Modes and gradients are left as found.
    layers : sequence of str
        Names of modules whose outputs have the shape (batch, neuron, ...), in the order of the forward pass.
    batches : iterable of (x, y)
        Training data, with int64 labels, on the model's device.
    measured_on : iterable of (x, y), optional
        What information and cores are measured on: a part of the training data to save time, or held-out data, for
        neurons that generalise. Default: ``batches``.
    config : AntitrainingConfig, optional
        Default: `AntitrainingConfig` as it comes.

    Returns
    -------
    AntitrainingReport

    Raises
    ------
    ValueError
        If there are no layers or batches, a layer is not there, or nothing with weights comes after it.

    References
    ----------
    Definition: "Antitraining" in the research log this package builds on; see docs/antitraining.md.

    Examples
    --------
    >>> net = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> x = torch.rand(64, 2)
    >>> found = antitrain(net, ["1"], [(x, (x[:, 0] > x[:, 1]).long())], config=AntitrainingConfig(rounds=2))
    >>> len(found.rounds), len(found.control)
    (2, 2)
    """
    chosen = config or AntitrainingConfig()
    check_batches(batches)
    seen = batches if measured_on is None else measured_on
    check_batches(seen)
    if isinstance(layers, str) or not layers:
        raise ValueError(f"`layers` must be a list of module names, got {layers!r}. Name at least one layer.")
    x, _ = next(iter(batches))
    places = [surroundings(model, layer, x) for layer in layers]
    for place in places:
        if not place.consumer:
            raise ValueError(
                f"`layers` must have weights after them, got {place.layer!r}. Antitraining changes what comes after it."
            )
    control = copy.deepcopy(model)
    without = _run(control, places, batches, seen, chosen, is_control=True)
    rounds = _run(model, places, batches, seen, chosen, is_control=False)
    return AntitrainingReport(rounds, without, control)


def _run(
    model: nn.Module,
    places: list[Surroundings],
    batches: Batches,
    seen: Batches,
    config: AntitrainingConfig,
    *,
    is_control: bool,
) -> tuple[Round, ...]:
    """All rounds of one model; its layers are antitrained from the last to the first."""
    done: list[Round] = []
    optimiser = torch.optim.Adam(model.parameters(), lr=config.lr)
    for index in range(config.rounds):
        train(model, batches, epochs=config.epochs, optimiser=optimiser, label_smoothing=config.label_smoothing)
        turn = [places[index % len(places)]] if config.schedule == "cyclic" else places[::-1]
        for place in turn:
            core = find_core(model, place, seen, config)
            if not is_control:
                spectators = torch.ones(place.width, dtype=torch.bool)
                spectators[core.neurons] = False
                known = running_statistics(model, place.layer, seen)
                silence(model, place, batches, spectators=spectators, statistics=known, config=config, index=index)
                core = find_core(model, place, seen, config)
            done.append(Round(index, place.layer, core))
    return tuple(done)


def find_core(model: nn.Module, place: Surroundings, batches: Batches, config: AntitrainingConfig) -> Core:
    """Rank a layer's neurons by their information and take the core.

    Parameters
    ----------
    model : nn.Module
        From inputs to logits; left as found.
    place : Surroundings
        The layer and its neighbours in the network, from `surroundings`.
    batches : iterable of (x, y)
        What information and accuracy are measured on.
    config : AntitrainingConfig
        ``noise``, ``criterion``, ``share`` and ``seed`` count.

    Returns
    -------
    Core
    """
    known = running_statistics(model, place.layer, batches)
    consumer = model.get_submodule(place.consumer)
    is_next = place.after[0] == place.consumer and isinstance(consumer, nn.Linear)
    how: dict[str, Any] = {"statistics": known, "noise": config.noise, "seed": config.seed}
    before = place.consumer if is_next else None
    information = neuron_information(model, place.layer, batches, before=before, **how)
    ranking = information.argsort(descending=True, stable=True)
    return core_set(model, place.layer, batches, ranking=ranking, criterion=config.criterion, share=config.share, **how)


def train(
    model: nn.Module,
    batches: Batches,
    *,
    epochs: int,
    optimiser: torch.optim.Optimizer,
    label_smoothing: float = 0.0,
) -> None:
    """Ordinary training on the task: cross-entropy, a step a batch; modes and gradients are left as found."""
    with left_as_found(model):
        model.train()
        for _ in range(epochs):
            for x, y in batches:
                optimiser.zero_grad()
                functional.cross_entropy(model(x), y, label_smoothing=label_smoothing).backward()
                optimiser.step()
                _constrain(model)


def silence(
    model: nn.Module,
    place: Surroundings,
    batches: Batches,
    *,
    spectators: Bool[Tensor, " neuron"],
    statistics: Statistics,
    config: AntitrainingConfig,
    index: int = 0,
) -> None:
    """Antitrain the spectators: the core says noise, the labels are random, and only weights after the layer learn.

    Parameters
    ----------
    model : nn.Module
        In evaluation, so that running statistics of normalisations stay; left as found.
    place : Surroundings
        The layer and its neighbours in the network, from `surroundings`.
    batches : iterable of (x, y)
        Random labels take the place of ``y``: its values, shuffled, so that all classes keep their share.
    spectators : bool tensor of shape (neuron,)
        True: outside of the core.
    statistics : Statistics
        Of the layer's neurons, for the noise.
    config : AntitrainingConfig
        ``anti_epochs``, ``anti_lr``, ``noise``, ``reach``, ``protect`` and ``seed`` count.
    index : int
        Of the round, for new noise and labels.
    """
    generator = torch.Generator().manual_seed(config.seed + 7919 * (index + 1))
    reached = (place.consumer,) if config.reach == "consumer" else place.after
    modules = dict.fromkeys(model.get_submodule(name) for name in reached)
    parameters = [p for module in modules for p in module.parameters(recurse=False)]
    columns = _columns(model.get_submodule(place.consumer), place.width)
    optimiser = torch.optim.Adam(parameters, lr=config.anti_lr)  # no decay, so a gradient of 0 changes nothing
    core = (~spectators).nonzero().flatten()
    with left_as_found(model):
        model.eval()
        for epoch in range(config.anti_epochs):
            how = replace(config, seed=config.seed + 7919 * (index + 1) + epoch)
            silenced = randomised(
                model, place.layer, ~spectators, statistics=statistics, noise=how.noise, seed=how.seed, detach=True
            )
            with silenced:
                for x, y in batches:
                    shuffled = y[torch.randperm(len(y), generator=generator).to(y.device)]
                    loss = functional.cross_entropy(model(x), shuffled)
                    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
                    for parameter, gradient in zip(parameters, gradients, strict=True):
                        if gradient is not None and config.protect and any(parameter is column for column in columns):
                            _clear(gradient, core, place.width)
                        parameter.grad = gradient
                    optimiser.step()
                    _constrain(model)


def _columns(consumer: nn.Module, width: int) -> list[Tensor]:
    """The consumer's weights that have a column, or a block of them, for each neuron."""
    return [p for p in consumer.parameters(recurse=False) if p.ndim > 1 and p.shape[1] % width == 0]


def _clear(gradient: Tensor, core: Int[Tensor, " core"], width: int) -> None:
    gradient.unflatten(1, (width, -1))[:, core] = 0.0


def _constrain(model: nn.Module) -> None:
    """Put weights back where a backbone wants them."""
    for module in model.modules():
        constrain = getattr(module, "constrain_", None)
        if constrain is not None:
            constrain()
