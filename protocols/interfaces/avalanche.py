"""`SlotStrategy`: slots as a strategy of Avalanche, in its benchmarks and under its metrics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from slots.continual.learner import ContinualSlots
from slots.errors import MissingExtraError, UsageError

try:
    from avalanche.training.plugins.evaluation import default_evaluator
    from avalanche.training.templates import SupervisedTemplate
except ImportError as error:
    raise MissingExtraError(
        f"`SlotStrategy` needs the package {error.name or 'avalanche-lib'}. "
        "Install it: pip install 'neural-slots[avalanche]'"
    ) from error

_UNSEEN = 50.0  # nats by which a class that has not come lies below the least likely one


class SlotStrategy(SupervisedTemplate):  # type: ignore[misc]
    """A learner of slots on the features of a frozen network.

    Parameters
    ----------
    model : nn.Module
        From inputs to features (batch, feature); any further axes are flattened. It stays as it is. For the inputs
        themselves: ``nn.Flatten()``.
    num_classes : int
        Labels that may come, from 0: the width of the outputs that metrics see.
    learner : estimator, optional
        With ``partial_fit`` and ``predict``. Default: `slots.ContinualSlots`, one pass in bounded memory.
    by_experience : bool, default False
        Whether it learns an experience as one batch, at its end, rather than each minibatch as it comes. Set it for
        `slots.SlotClassifier`, whose first call sets the scale of the features.
    criterion : callable
        Loss that is reported; nothing is trained by it. Default: cross-entropy.
    train_mb_size, eval_mb_size : int
        Examples that go through the network together.
    device : str or torch device
        Of the network.
    plugins : sequence, optional
        Of Avalanche. Default: none.
    evaluator
        As Avalanche's strategies take it.
    **options
        Further ones of `avalanche.training.templates.SupervisedTemplate`.

    Notes
    -----
    An experience is one pass, so ``train_epochs`` is 1. While it learns, outputs are those before the minibatch was
    learned; so accuracies of the training stream tell how well the next examples are foretold. Outputs are evidence in
    nats, or log probabilities; the answer has the highest.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        num_classes: int,
        learner: Any = None,
        by_experience: bool = False,
        criterion: Callable[..., Tensor] | None = None,
        train_mb_size: int = 100,
        eval_mb_size: int = 500,
        device: str | torch.device = "cpu",
        plugins: Sequence[Any] | None = None,
        evaluator: Any = default_evaluator,
        **options: Any,
    ) -> None:
        if num_classes < 1:
            raise UsageError(f"`num_classes` must be >= 1, got {num_classes}. It is how many labels may come.")
        super().__init__(
            model=model.eval(),
            optimizer=None,
            criterion=criterion or nn.CrossEntropyLoss(),
            train_mb_size=train_mb_size,
            train_epochs=1,
            eval_mb_size=eval_mb_size,
            device=device,
            plugins=list(plugins or ()),
            evaluator=evaluator,
            **options,
        )
        self.learner = ContinualSlots(random_state=0) if learner is None else learner
        self.num_classes, self.by_experience = num_classes, by_experience

    def make_optimizer(self, **_: Any) -> None:
        """Nothing is trained by an optimizer."""

    @torch.no_grad()
    def training_epoch(self, **kwargs: Any) -> None:
        """Learn the examples of an experience in one pass.

        Parameters
        ----------
        **kwargs
            Passed on to the plugins.
        """
        rows, labels = list[Any](), list[Any]()
        for minibatch in self.dataloader:
            self.mbatch = minibatch
            self._unpack_minibatch()
            self._before_training_iteration(**kwargs)
            self._before_forward(**kwargs)
            features = self._features()
            self.mb_output = self._outputs(features)
            self._after_forward(**kwargs)
            self.loss = self._make_empty_loss() + self.criterion()
            self._before_update(**kwargs)
            rows.append(features.cpu().numpy())
            labels.append(self.mb_y.cpu().numpy())
            if not self.by_experience:
                self.learner.partial_fit(rows.pop(), labels.pop())
            self._after_update(**kwargs)
            self._after_training_iteration(**kwargs)
        if rows:
            self.learner.partial_fit(np.concatenate(rows), np.concatenate(labels))

    @torch.no_grad()
    def forward(self) -> Tensor:
        """Outputs of the present minibatch, shape (batch, num_classes)."""
        return self._outputs(self._features())

    def _features(self) -> Tensor:
        self.model.eval()
        features: Tensor = self.model(self.mb_x).flatten(1).float()
        return features

    def _outputs(self, features: Tensor) -> Tensor:
        """A column a label; classes that have not come are below all others."""
        out = np.zeros((len(features), self.num_classes), np.float32)
        try:
            known = np.asarray(self.learner.classes_)
        except AttributeError:  # nothing was learned yet: NotFittedError is one
            return torch.from_numpy(out).to(features.device)
        if int(known.max()) >= self.num_classes:
            raise UsageError(f"`num_classes` must be above {known.max()}, the highest label, got {self.num_classes}.")
        rows = features.cpu().numpy()
        scores, answers = _scores(self.learner, rows), np.searchsorted(known, self.learner.predict(rows))
        here = np.arange(len(rows))
        best = scores.argmax(1)
        scores[here, best], scores[here, answers] = scores[here, answers], scores[here, best]
        out += scores.min(1, keepdims=True) - _UNSEEN
        out[:, known] = scores
        return torch.from_numpy(out).to(features.device)


def _scores(learner: Any, rows: Any) -> Any:
    """Evidence for each class, or the logarithm of its probability; shape (example, class)."""
    if isinstance(learner, ContinualSlots):
        found = learner.evidence(rows)
    else:
        found = np.log(np.maximum(learner.predict_proba(rows), 1e-12))
    return np.array(found - found.max(1, keepdims=True), np.float32)
