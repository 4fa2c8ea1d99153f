"""Adam for the slots alone, as an optimiser that a fit can keep, follow and store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from slots.adam import Adam


class SlotAdam:
    """What `torch.optim.AdamW` does without weight decay to one parameter on a CPU, bit for bit, and stores alike.

    Where no backbone learns, a fit of some hundred examples is over before `torch.optim` has imported torch's compiler.

    Parameters
    ----------
    group : dict
        ``params``: a list of the one parameter; ``lr`` and whatever else the caller keeps there.
    """

    def __init__(self, group: dict[str, Any]) -> None:
        self.param_groups = [group]
        self.state: dict[nn.Parameter, Adam] = {}

    @property
    def _parameter(self) -> nn.Parameter:
        found: nn.Parameter = self.param_groups[0]["params"][0]
        return found

    def zero_grad(self) -> None:
        """Forget the gradient."""
        self._parameter.grad = None

    def step(self) -> None:
        """Take one step; a parameter without a gradient stays."""
        parameter = self._parameter
        if parameter.grad is not None:
            self._adam().step(parameter.grad, self.param_groups[0]["lr"])

    def _adam(self) -> Adam:
        if self._parameter not in self.state:
            self.state[self._parameter] = Adam(self._parameter)
        return self.state[self._parameter]

    def state_dict(self) -> dict[str, Any]:
        """The state under torch's names."""
        adam = self.state.get(self._parameter)
        if adam is None:
            return {"state": {}, "param_groups": self.param_groups}
        named = {"step": torch.tensor(float(adam.steps)), "exp_avg": adam.mean, "exp_avg_sq": adam.square}
        return {"state": {0: named}, "param_groups": self.param_groups}

    def load_state_dict(self, document: Mapping[str, Any]) -> None:
        """Go on from a stored state; the groups stay."""
        for named in document["state"].values():
            adam = self._adam()
            adam.steps = int(named["step"])
            adam.mean, adam.square = named["exp_avg"].clone(), named["exp_avg_sq"].clone()
