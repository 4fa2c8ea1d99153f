"""A training step that is recorded once on a GPU and then replayed by one launch (a CUDA graph)."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from slots.errors import UsageError

Step = Callable[..., Tensor]
"""From a batch to its loss; changes parameters in place, and what it does depends on nothing that the host decides."""

_WARM = 3  # steps that are taken as they are before: libraries set themselves up in the first ones


class Recorder(Protocol):
    """What records the launches of a device."""

    def aside(self, work: Callable[[], Tensor]) -> Tensor:
        """Do something where recording can go on from it."""

    def record(self, work: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
        """Record something without doing it: its result, which each call of the replay fills anew, and the replay."""


class CudaRecorder:
    """CUDA graphs, as `torch.cuda.graph` records them."""

    def aside(self, work: Callable[[], Tensor]) -> Tensor:
        """On a stream of its own, as the gradients of what is recorded later."""
        here, side = torch.cuda.current_stream(), torch.cuda.Stream()
        side.wait_stream(here)
        with torch.cuda.stream(side):
            found = work()
        here.wait_stream(side)
        found.record_stream(here)
        return found

    def record(self, work: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
        """Record what ``work`` launches."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            found = work()
        return found, graph.replay


def records_steps(device: torch.device) -> bool:
    """Whether training steps are recorded: on a GPU, where ``SLOTS_GRAPH=1`` stands in the environment."""
    return device.type == "cuda" and os.environ.get("SLOTS_GRAPH") == "1"


class RecordedStep:
    """A step that is taken a few times as it is, then recorded, then replayed; the results are the same.

    Parameters
    ----------
    step : callable
        What is to be done with a batch.
    changed : callable
        Gives the tensors that a step changes. A replay changes them behind torch's back, so their changes are counted
        here: what is kept of them elsewhere is then known to be old.
    recorder : Recorder, optional
        Default: CUDA graphs.

    Notes
    -----
    Batches of another shape than the recorded one, such as the last of an epoch, are taken as they are.
    """

    def __init__(
        self, step: Step, changed: Callable[[], Sequence[Tensor]], *, recorder: Recorder | None = None
    ) -> None:
        self._step, self._changed, self._recorder = step, changed, recorder or CudaRecorder()
        self._taken = 0
        self._inputs: tuple[Tensor, ...] = ()
        self._loss: Tensor | None = None
        self._replay: Callable[[], None] = _nothing

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Take one step; the loss may be overwritten by the next one.

        Parameters
        ----------
        *inputs : tensors
            A batch, on the device.
        """
        shapes = [(it.shape, it.dtype) for it in inputs]
        if self._loss is not None and shapes == [(it.shape, it.dtype) for it in self._inputs]:
            for here, given in zip(self._inputs, inputs, strict=True):
                here.copy_(given)
            self._replay()
            torch.autograd.graph.increment_version(self._changed())
            return self._loss
        if self._loss is not None:
            return self._step(*inputs)
        self._taken += 1
        if self._taken <= _WARM:
            return self._recorder.aside(lambda: self._step(*inputs))
        self._inputs = tuple(it.clone() for it in inputs)
        try:
            self._loss, self._replay = self._recorder.record(lambda: self._step(*self._inputs))
        except RuntimeError as error:
            raise UsageError(
                f"A step of this training cannot be recorded ({error!s:.200}). Fit it without SLOTS_GRAPH=1."
            ) from error
        return self(*inputs)


def _nothing() -> None:
    pass
