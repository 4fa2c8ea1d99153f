"""The training loop: one step, its views, its regularisers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from slots.clustering.device_kmeans import device_centres
from slots.clustering.kmeans import directions
from slots.distributed import ALONE, Ranks
from slots.features.source import FeatureSource
from slots.features.views import Views, parse_views
from slots.head.similarities import normalize
from slots.model.slot_model import SlotModel
from slots.progress import Log, Progress, unlogged
from slots.rounding import multiplies_bfloat16
from slots.shapes import RawInputs
from slots.training.backbone_hooks import constrain, has_schedule, learns, prepare, schedule
from slots.training.checkpoint import Checkpoint, shared_checkpoint, write_checkpoint
from slots.training.config import TrainConfig
from slots.training.distributed.class_shard import ClassShard, divides_exactly
from slots.training.optimizers import Optimizer, follow, make_capturable, make_optimizers, set_rates
from slots.training.steps.recorded import RecordedStep, records_steps
from slots.training.steps.sparse import allowed_features, keep_largest_
from slots.training.steps.tally import Tally

Regularizer = Callable[[nn.Module, Tensor], tuple[Tensor, Tensor]]
"""``regularizer(backbone, inputs)``: features of a batch of inputs, and what is added to the loss."""

_SAMPLE = 2000  # training inputs that a backbone may look at before the training
_SHARE_OF_MEMORY = 4  # raw inputs may take one part in so many of the free memory of a GPU
_KMEANS_EXAMPLES = 3000  # per class; more moves the centres little and costs time


@dataclass(frozen=True)
class FitLoop:
    """One training run: what it works on, and the loop."""

    model: SlotModel
    x: RawInputs
    y: Tensor
    fitted: npt.NDArray[np.int64]
    config: TrainConfig
    progress: Progress
    stop: Callable[[], bool]
    source: FeatureSource | None = None
    """Features that were computed before; None where the backbone or chance changes them."""
    regularizer: Regularizer | None = None
    ranks: Ranks = ALONE
    """Processes that all run this loop on the same data, and divide the slots where the features do not change."""
    log: Log = unlogged
    """Told the loss and the number of slots after each epoch."""

    @cached_property
    def _learns(self) -> bool:
        """Whether the backbone learns."""
        return learns(self.model.backbone)

    @cached_property
    def _halves(self) -> bool:
        """Whether the backbone runs in bfloat16."""
        return self.config.autocast and multiplies_bfloat16(self.y.device)

    @cached_property
    def _half_products(self) -> bool:
        """Whether the slots are multiplied with in bfloat16."""
        return self.config.half_products and multiplies_bfloat16(self.y.device)

    @cached_property
    def n_labels(self) -> int:
        """How many labels the data has."""
        return len(self.y.unique())

    @cached_property
    def inputs(self) -> RawInputs:
        """The raw inputs, on the device where they fit easily: a batch is then no transfer."""
        if self.y.device.type != "cuda" or self.source is not None:
            return self.x
        there = torch.as_tensor(self.x)
        free, _ = torch.cuda.mem_get_info(self.y.device)
        return there.to(self.y.device) if there.nbytes < free // _SHARE_OF_MEMORY else self.x

    def train(self, path: Path | None, *, resume: bool) -> tuple[list[float], bool]:
        """Run the epochs; returns the mean loss of each, and whether ``stop`` ended them."""
        model, config = self.model, self.config
        losses: list[float] = []
        stored = shared_checkpoint(path, config, self.y, self.ranks) if resume and path is not None else None
        if stored is not None:
            model.load_state_dict(stored.model)
            losses = list(stored.losses)
        else:
            if model.preprocessing.kind != "text":
                sample = np.random.default_rng(config.seed).permutation(self.fitted)[:_SAMPLE]
                prepare(model.backbone, model.preprocessing(self.x[np.sort(sample)], model.device))
            if config.slots_per_class:
                self._start(train_mode=self._learns)
        optimizers = make_optimizers(model.head, model.backbone, config)
        if stored is not None:
            stored.restore(optimizers)
        recorded = self._recorded(optimizers)
        for epoch in range(len(losses), config.epochs):
            if self._learns:  # a backbone or a regulariser may draw: after a resume it draws the same
                torch.manual_seed(int(np.random.default_rng([config.seed, epoch, 1]).integers(1 << 62)))
            grows = config.slots_per_class == 0 and epoch < config.grow_epochs
            if self.ranks.size > 1 and not grows and self._divides:
                loss = self._epoch_by_class(epoch, optimizers)
            else:
                loss = self._epoch(epoch, optimizers, recorded)
            if loss is None:
                return losses, True
            losses.append(loss)
            self.log("train/loss", loss, len(losses))
            self.log("slots", model.head.n_slots, len(losses))
            if path is not None and self.ranks.is_first:
                write_checkpoint(path, Checkpoint.of(model, optimizers, losses), config, self.y)
        schedule(model.backbone, 1.0)
        return losses, False

    @torch.no_grad()
    def _start(self, *, train_mode: bool) -> None:
        """Initial slots: spherical k-means on the features of each class."""
        self.model.train(train_mode)  # untrained batch normalisation needs the statistics of a batch
        labels = self.y.unique().tolist()
        found = self.ranks.each(labels, lambda label: (self._centres(label),))
        for label, (centres,) in zip(labels, found, strict=True):
            if len(centres):
                self.model.head.add_slots(centres, torch.full((len(centres),), label))

    def _centres(self, label: int) -> Tensor:
        """Initial slots of one class; none where it has no example with a direction."""
        config = self.config
        ids = self.fitted[(self.y[torch.from_numpy(self.fitted)] == label).cpu().numpy()][:_KMEANS_EXAMPLES]
        parts = [self._plain_features(ids[i : i + 500]) for i in range(0, len(ids), 500)]
        if not parts:
            return self.model.head.weights.detach()[:0]
        unit = normalize(torch.cat(parts).float())
        self.progress("initial slots", (label + 1) / (int(self.y.max()) + 1))
        if unit.device.type == "cpu":
            return torch.from_numpy(directions(unit.numpy(), config.slots_per_class, seed=config.seed))
        return device_centres(unit[(unit != 0).any(1)], config.slots_per_class, seed=config.seed)

    def _plain_features(self, ids: npt.NDArray[np.int64]) -> Tensor:
        """Features of inputs as they are."""
        if self.source is not None:
            return self.source.plain(ids)
        inputs = self.model.preprocessing(self.x[ids], self.model.device)
        return self.model.featurizer.project(self.model.backbone(inputs))

    def _features(self, views: Tensor) -> tuple[Tensor, Tensor | float]:
        """Features of a batch of viewed inputs, and what a regulariser adds to the loss."""
        if self.source is not None:
            return views.float(), 0.0
        if self.regularizer is None:
            return self.model.featurize(views).float(), 0.0
        features, extra = self.regularizer(self.model.backbone, views.flatten(0, 1))
        return features.reshape(*views.shape[:2], features.shape[-1]).float(), extra

    def _epoch(self, epoch: int, optimizers: Sequence[Optimizer], recorded: RecordedStep | None) -> float | None:
        """One pass over the training part; None when stopped."""
        model, config = self.model, self.config
        model.train(self._learns)
        growing = config.slots_per_class == 0 and epoch < config.grow_epochs
        tally = Tally(self.y.device)
        for start, batch, views in self.batches(epoch):
            ids = _sent(batch, self.y.device)
            done = (epoch + start / len(self.fitted)) / config.epochs
            after = done + len(batch) / len(self.fitted) / config.epochs
            schedule(model.backbone, done)
            set_rates(optimizers, done)
            if growing:
                loss = self._growing_step(views, ids, optimizers, after)
            elif recorded is not None:
                loss = recorded(views, self.y[ids])
            else:
                loss = self._step(views, self.y[ids], optimizers, after)
            if loss is None:
                continue
            tally.add(loss, len(batch))
            if tally.is_due():
                text = f"epoch {epoch + 1}/{config.epochs}  loss {tally.mean():.4f}"
                self.progress(text, (start + len(batch)) / len(self.fitted))
            if self.stop():
                return None
        if growing:
            model.head.prune()
            follow(optimizers, model.head)
        return tally.mean()

    def _step(self, views: Tensor, targets: Tensor, optimizers: Sequence[Optimizer], after: float) -> Tensor | None:
        """Learn from a batch, ``after`` which so much is done; its loss, or None where no slot has a label of it."""
        features, extra = self._learned_features(views)
        known = self._of_known_labels(features, targets)
        if known is None:
            return None
        loss = self._descend(*known, extra, optimizers)
        for optimizer in optimizers:
            optimizer.step()
        self._put_back(after)
        return loss

    def _growing_step(self, views: Tensor, ids: Tensor, optimizers: Sequence[Optimizer], after: float) -> Tensor | None:
        """The same where the head may take new slots first; they move by plain steps."""
        head, targets = self.model.head, self.y[ids]
        features, extra = self._learned_features(views)
        head.grow(features.detach(), targets, ids)
        known = self._of_known_labels(features, targets)
        if known is None:
            return None
        loss = self._descend(*known, extra, optimizers)
        head.step_(10 * self.config.slot_lr)  # and the optimiser, without a gradient, leaves the slots alone
        for optimizer in optimizers:
            optimizer.step()
        self._put_back(after)
        return loss

    def _learned_features(self, views: Tensor) -> tuple[Tensor, Tensor | float]:
        """Features of a batch, with gradients where the backbone learns."""
        with (
            torch.set_grad_enabled(self._learns),
            torch.autocast(self.y.device.type, torch.bfloat16, enabled=self._halves),
        ):
            return self._features(views)

    def _of_known_labels(self, features: Tensor, targets: Tensor) -> tuple[Tensor, Tensor] | None:
        """What has a slot of its label; of a class of zero rows there is none."""
        if self._all_known():
            return features, targets
        known = torch.isin(targets, self.model.head.classes)
        if not bool(known.any()):
            return None
        return (features, targets) if bool(known.all()) else (features[known], targets[known])

    def _descend(
        self, features: Tensor, targets: Tensor, extra: Tensor | float, optimizers: Sequence[Optimizer]
    ) -> Tensor:
        """Loss of a batch; leaves its gradients."""
        head, config = self.model.head, self.config
        wanted = columns(head.classes, targets)
        logits = head(features, half=self._half_products)
        if config.margin:
            own = wanted[:, None] == torch.arange(head.n_classes, device=wanted.device)
            logits = logits - head.scale * config.margin * own
        loss = functional.cross_entropy(logits, wanted, label_smoothing=config.label_smoothing) + extra
        follow(optimizers, head)
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        return loss.detach()

    def _put_back(self, after: float) -> None:
        """Weights onto few features and the sphere, and into what a backbone allows."""
        self._keep_few(after)
        self.model.head.renormalize_()
        constrain(self.model.backbone)

    def _recorded(self, optimizers: Sequence[Optimizer]) -> RecordedStep | None:
        """A step that can be replayed, where one is wanted and the host decides nothing in it."""
        config, device = self.config, self.y.device
        if not records_steps(device) or config.slots_per_class == 0 or config.features_per_slot or config.matrix_lr:
            return None
        if (
            self.regularizer is not None
            or not self._all_known()
            or (self._learns and has_schedule(self.model.backbone))
        ):
            return None

        def step(views: Tensor, targets: Tensor) -> Tensor:
            loss = self._step(views, targets, optimizers, 1.0)
            assert loss is not None  # all labels are known
            return loss

        make_capturable(optimizers)
        return RecordedStep(step, lambda: list(self.model.parameters()))

    def _keep_few(self, progress: float) -> None:
        """Leave the slots as many features as they may have at this point of the training."""
        if self.config.features_per_slot:
            weights = self.model.head.weights.data
            keep_largest_(weights, allowed_features(weights.shape[1], self.config.features_per_slot, progress))

    @cached_property
    def _divides(self) -> bool:
        """Whether the slots can be divided among processes without a change of any bit."""
        head, batch, n = self.model.head, self.config.batch_size, len(self.fitted)
        config = self.config
        if self.regularizer is not None or config.autocast or config.half_products or config.features_per_slot:
            return False
        if not self._all_known():
            return False
        views = min(self.model.views.n_views, self.config.sampled_views)
        sizes = {min(batch, n), n % batch} - {0, *([] if n == 1 else [1])}
        return divides_exactly(head, [(size, views) for size in sorted(sizes)], self.ranks)

    def _epoch_by_class(self, epoch: int, optimizers: Sequence[Optimizer]) -> float | None:
        """`_epoch` where the slots of each process are those of some classes."""
        config, head, tally = self.config, self.model.head, Tally(self.y.device)
        shard = ClassShard(head, optimizers, config, self.ranks)
        for start, batch, views in self.batches(epoch):
            with torch.no_grad():
                features, _ = self._features(views)
            set_rates(optimizers, (epoch + start / len(self.fitted)) / config.epochs)
            wanted = columns(head.classes, self.y[_sent(batch, self.y.device)])
            tally.add(shard.step(features, wanted), len(batch))
            if tally.is_due():
                text = f"epoch {epoch + 1}/{config.epochs}  loss {tally.mean():.4f}"
                self.progress(text, (start + len(batch)) / len(self.fitted))
            if self.stop():
                shard.collect()
                return None
        shard.collect()
        return tally.mean()

    def _all_known(self) -> bool:
        """Whether every label of the data has a slot, so that no batch need be looked through."""
        return len(self.model.head.classes) == self.n_labels

    def batches(self, epoch: int, *, plain: float = 0.0) -> Iterator[tuple[int, npt.NDArray[np.int64], Tensor]]:
        """Start, ids and viewed inputs (or their features) of each batch; all chance comes from seed and epoch.

        A share ``plain`` of the inputs is not augmented.
        """
        config, model = self.config, self.model
        rng = np.random.default_rng([config.seed, epoch])
        generator = torch.Generator().manual_seed(int(rng.integers(1 << 62)))
        augment = parse_views(config.augment)
        order = rng.permutation(self.fitted)
        for start in range(0, len(order), config.batch_size):
            batch = order[start : start + config.batch_size]
            if len(batch) < 2 and len(order) > 1:
                continue  # batch normalisation cannot take one example
            drawn = _some_views(model.views, config.sampled_views, rng)
            if self.source is not None:
                yield start, batch, self.source(batch)[:, drawn]
                continue
            chosen = batch if self.inputs is self.x else _sent(batch, model.device)
            inputs = model.preprocessing(self.inputs[chosen], model.device)
            if augment.n_views > 1:
                changed = augment.sample(inputs, generator)
                if plain > 0:
                    kept = torch.rand(len(inputs), generator=generator).to(inputs.device) < plain
                    changed = torch.where(kept[:, None, None, None], inputs, changed)
                inputs = changed
            yield start, batch, _view(model.views, drawn, inputs)


def _sent(ids: npt.NDArray[np.int64], device: torch.device) -> Tensor:
    """Ids on the device."""
    return torch.from_numpy(ids).to(device, non_blocking=True)


def _some_views(views: Views, count: int, rng: np.random.Generator) -> list[int]:
    """Places of all views, or of ``count`` of them drawn for this batch."""
    if views.n_views <= count:
        return list(range(views.n_views))
    return sorted(rng.choice(views.n_views, count, replace=False).tolist())


def _view(views: Views, drawn: list[int], inputs: Tensor) -> Tensor:
    """Inputs in the views that were drawn, shape (example, view, ...)."""
    if views.n_views == 1:
        return inputs[:, None]
    return Views(views.spec, tuple(views.steps[i] for i in drawn))(inputs)


def columns(classes: Tensor, labels: Tensor) -> Tensor:
    """Score column of each label, which must be one of ``classes``; these need not be sorted."""
    order = classes.argsort()
    return order[torch.searchsorted(classes[order], labels)]
