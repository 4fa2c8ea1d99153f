"""What training asks of a backbone beside its features; a backbone without such a method is left alone."""

from __future__ import annotations

from torch import Tensor, nn


def learns(backbone: nn.Module) -> bool:
    """Whether any of its parameters asks for gradients."""
    return any(parameter.requires_grad for parameter in backbone.parameters())


def prepare(backbone: nn.Module, inputs: Tensor) -> None:
    """Let a backbone with layers that start from data (``prepare_(inputs)``) look at some of it."""
    look = getattr(backbone, "prepare_", None)
    if callable(look):
        look(inputs)


def schedule(backbone: nn.Module, progress: float) -> None:
    """Tell a backbone that changes over the training (``schedule_(progress)``) how much of it is done, 0 to 1."""
    rule = getattr(backbone, "schedule_", None)
    if callable(rule):
        rule(progress)


def has_schedule(backbone: nn.Module) -> bool:
    """Whether `schedule` may change anything: a layer has a rule that it does not (``has_schedule``) call none."""
    rules = (
        getattr(layer, "has_schedule", callable(getattr(layer, "schedule_", None))) for layer in backbone.modules()
    )
    return any(rules)


def constrain(backbone: nn.Module) -> None:
    """Let a backbone with constrained weights (``constrain_()``) put them back where they must lie."""
    rule = getattr(backbone, "constrain_", None)
    if callable(rule):
        rule()
