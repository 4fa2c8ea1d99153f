"""A fit: backbone and head together, or the head alone on a frozen backbone, then the closing pass."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from slots.closing.closing_pass import Closed, close_fit
from slots.closing.config import ClosingConfig, ClosingReport
from slots.deprecation import renamed
from slots.distributed import ALONE, Ranks
from slots.errors import DataError, UsageError
from slots.features.example_ids import ExampleIds, check_example_ids, remembered_ids
from slots.features.source import FeatureSource, first_views, unit_features
from slots.features.training_data import training_data
from slots.features.whitening import ClassSums, Whitening
from slots.labels import check_labels
from slots.model.slot_model import SlotModel
from slots.novelty.left_out.measures import FEW
from slots.progress import Log, Progress, silent, unlogged
from slots.rehearsal.memory import remember
from slots.shapes import RawInputs
from slots.training.backbone_hooks import learns
from slots.training.config import TrainConfig
from slots.training.cross_fit import ENOUGH, CrossFit, cross_fit
from slots.training.defaults import AutoConfig, Look, look_at
from slots.training.distributed.alike import check_alike, check_models
from slots.training.fixed_features import first_slots, train_fixed
from slots.training.loop import FitLoop, Regularizer
from slots.training.robust_slots import SHARP, check_robust, fit_robust_slots
from slots.training.steps.assembling import assemble, empty_head

_OPEN_SHARE = 0.2  # of networks' features: right when matched 98 % on those of a network that had seen its rows
_FEWEST = 10  # held-out examples that can calibrate anything
_SMALL_WORK = 5e7  # multiplications a batch: a millisecond of one thread


@dataclass(frozen=True)
class FitResult:
    """What a fit did.

    Parameters
    ----------
    epochs : int
        Epochs completed, those before a resume included.
    losses : tuple of float
        Mean cross-entropy of each epoch.
    elapsed_s : float
        Seconds, closing pass included.
    interrupted : bool
        Whether ``stop`` ended the training early; the model is closed and usable all the same.
    closing : ClosingReport
        What the closing pass did, and its answers on the training data.
    config : TrainConfig
        What the fit used.
    look : Look or None
        What a look at the data found, where the config was left to it.
    """

    epochs: int
    losses: tuple[float, ...]
    elapsed_s: float
    interrupted: bool
    closing: ClosingReport
    config: TrainConfig
    look: Look | None = None


@renamed(report="progress")
def fit(
    x: RawInputs,
    y: npt.ArrayLike | None = None,
    *,
    backbone: nn.Module | None = None,
    config: TrainConfig | AutoConfig | Look | None = None,
    class_names: tuple[str, ...] = (),
    checkpoint: str | Path | None = None,
    resume: bool = False,
    keep_checkpoint: bool = False,
    regularizer: Regularizer | None = None,
    ids: ExampleIds | None = None,
    progress: Progress | None = None,
    log: Log | None = None,
    stop: Callable[[], bool] | None = None,
    ranks: Ranks = ALONE,
) -> tuple[SlotModel, FitResult]:
    """Fit a slot model: train backbone and slots, then set exact caps by the closing pass.

    Parameters
    ----------
    x : array
        uint8 images of shape (example, height, width[, channel]), float features of shape (example, feature), or a list
        of texts; or a data set of PyTorch or Hugging Face, with its labels (`slots.sources.read_source`).
    y : array of shape (example,), optional
        Labels: whole numbers >= 0, or names. Default: those of the data set.
    backbone : nn.Module, optional
        From (batch, channel, height, width) to (batch, feature). Without parameters that ask for gradients it stays
        as it is, and only the head is trained. Default: none, the inputs are the features.
    config : TrainConfig, AutoConfig or Look, optional
        How to train and to close; a look at the same features found the setting. Default: chosen by a short look at the
        data (`AutoConfig`), where training does not change the features; `TrainConfig`'s own numbers where it does.
    class_names : tuple of str
        Name of label ``i`` at place ``i``; a label beyond them is shown as its number. Default: where ``y`` holds
        names, those in their order.
    checkpoint : path, optional
        File written after each epoch; removed when the fit is done. Where it cannot be removed, a warning says so: the
        model is worth more.
    resume : bool, default False
        Go on from ``checkpoint`` where it exists.
    keep_checkpoint : bool, default False
        Leave the checkpoint to the caller, who saves the model first and then calls
        `slots.training.checkpoint.remove_checkpoint`: so a kill or a full disk between the two costs no training.
    regularizer : callable, optional
        ``regularizer(backbone, inputs) -> (features, loss)``, called in each step in place of the backbone: the loss is
        added, and a head that shall not train the backbone gets detached features. An example is
        `backbones.explanations.reconstruct`.
    ids : sequence of str, optional
        Of each example the id in your own store, 1 to 256 characters. Those of the examples that the slots remember are
        kept in ``model.exemplar_ids``, so that an answer leads back to the item behind it. Default: none.
    progress : callable, optional
        Told the progress.
    log : callable, optional
        ``log(name, value, step)``, told the curves: after each epoch ``train/loss`` and ``slots``, at the end, with the
        number of epochs as step, ``train/accuracy``, ``train/matched`` and ``slots`` of the closed model.
        ``SummaryWriter.add_scalar`` of TensorBoard is such a callable, and so is ``mlflow.log_metric``.
    stop : callable, optional
        Asked after each batch; true, in any process, ends the training, and the closing pass follows.
    ranks : Ranks, default ALONE
        Processes that all call this with the same arguments (`slots.distributed.join`). They share the work, and all
        get the model of one process, bit for bit; the first alone writes the checkpoint.

    Returns
    -------
    model : SlotModel
    result : FitResult

    Raises
    ------
    DataError
        If the data is empty, of the wrong form, not finite, has labels that are no whole numbers >= 0, or ids that are
        none.
    UsageError
        If the options contradict each other, a checkpoint belongs to another fit, or processes differ in what they
        were given, or would have to train a backbone.
    RankLostError
        If another process is gone.

    Notes
    -----
    On CPUs of one kind the result depends on data, config and number of threads only. One class is allowed: its slots
    are then limited by their support caps alone. Equal inputs with different labels are allowed: no slot will match
    them.
    """
    started = time.monotonic()
    auto = AutoConfig() if config is None else config
    look = auto if isinstance(auto, Look) else None
    config = auto.base if isinstance(auto, AutoConfig) else auto.config if isinstance(auto, Look) else auto
    config = config if config.robust is None else replace(config, beta=SHARP)
    progress, log = progress or silent, log if log is not None and ranks.is_first else unlogged
    x, y, class_names = training_data(x, y, class_names)
    labels = check_labels(x, y, n_names=len(class_names))
    known = None if ids is None else check_example_ids(ids, len(labels))
    torch.manual_seed(config.seed)
    check_alike(x, labels, (config, auto), backbone, ranks)
    model = assemble(x, backbone, config, class_names)
    if config.robust is not None:
        check_robust(model, config)
    held_out = hold_out(labels, config.held_out, config.seed)
    fitted = np.setdiff1d(np.arange(len(labels)), held_out)
    source = _fixed_features(model, x, config, progress, ranks)
    rows = None
    if isinstance(auto, AutoConfig) and _is_fixed(model, config) and not _trains_otherwise(config):
        rows = _rows(model, x, source)
        look = look_at(rows, labels, auto, among=fitted, progress=progress)
    if look is not None:
        config = look.config
        model.head.scale, model.head.beta, model.head.precision = config.scale, config.beta, config.precision
    asks = _wants_cross_fit(model, config, n_held_out=len(held_out))
    if rows is None and (config.whitening is not None or asks):
        rows = _rows(model, x, source)
    if config.whitening is not None and rows is not None:
        _whiten(model, rows[torch.from_numpy(fitted)], labels[fitted], config)
        source = _whitened(model, x, ranks, progress) if source is None else source.projected()
    rows = rows if asks else None  # or they would take memory until the end
    targets = torch.from_numpy(labels).to(model.device)
    run = FitLoop(model, x, targets, fitted, config, progress, ranks.agreed(stop), source, regularizer, ranks, log)
    with _threads_for(model, backbone, config, n_labels=len(np.unique(labels))):
        losses, interrupted = _train(run, look, None if checkpoint is None else Path(checkpoint), resume=resume)
        if not model.head.n_slots and model.preprocessing.kind != "text" and not bool(torch.as_tensor(x).any()):
            raise DataError("`x` must have an example that is not all zeros, got none. Check how the data was made.")
        source = FeatureSource(model.featurizer, x, ranks=ranks) if source is None else source
        crossed = None if rows is None else _crossed(rows, labels, config, len(held_out), progress)
        closed = close_fit(
            source,
            model.head,
            labels,
            held_out=held_out,
            config=_closing(config.closing, look, model),
            progress=progress,
            evidence=None if crossed is None else crossed.evidence,
            measures=None if crossed is None else crossed.measures,
        )
    _put(model, closed, known)
    model.rehearsal = remember(source, model.head, labels, held_out=held_out, seed=config.seed, progress=progress)
    model.eval()
    check_models(model, ranks)
    if checkpoint is not None and not keep_checkpoint and ranks.is_first:
        drop_checkpoint(Path(checkpoint))
    _log_closed(log, model, closed.report, labels, epochs=len(losses))
    elapsed = time.monotonic() - started
    return model, FitResult(len(losses), tuple(losses), elapsed, interrupted, closed.report, config, look)


def _log_closed(
    log: Log, model: SlotModel, report: ClosingReport, labels: npt.NDArray[np.int64], *, epochs: int
) -> None:
    """The end of the curves: what the closed model is."""
    log("train/accuracy", float((report.labels == labels).mean()), epochs)
    log("train/matched", float(report.matched.mean()), epochs)
    log("slots", model.head.n_slots, epochs)


def _put(model: SlotModel, closed: Closed, ids: npt.NDArray[Any] | None) -> None:
    """Give a model what the closing pass made, and the user's ids of what its slots remember."""
    model.novelty, model.thumbnails = closed.novelty, closed.exemplar_images
    model.exemplar_features, model.familiar_shares = closed.exemplar_features, closed.familiar
    if ids is not None:
        model.exemplar_ids = remembered_ids(ids, model.head.exemplars.cpu().numpy())


def _whitened(model: SlotModel, x: RawInputs, ranks: Ranks, progress: Progress) -> FeatureSource:
    """Features after a whitening was put into the model."""
    return FeatureSource(model.featurizer, x, ranks=ranks).fill(progress)


def drop_checkpoint(checkpoint: Path) -> None:
    """Remove the checkpoint of a fit that is done; that it stays is no reason to lose the model.

    Parameters
    ----------
    checkpoint : Path
        Its file; nothing happens where there is none.
    """
    try:
        checkpoint.unlink(missing_ok=True)
    except OSError as error:
        said = f"The fit is done, but its checkpoint `{checkpoint}` must be removable, got: {error.strerror or error}."
        warnings.warn(f"{said} Remove it by hand: nothing needs it any more.", RuntimeWarning, stacklevel=4)


def _train(run: FitLoop, look: Look | None, checkpoint: Path | None, *, resume: bool) -> tuple[list[float], bool]:
    """Train as the config asks; returns the mean loss of each epoch, and whether ``stop`` ended them."""
    if run.config.robust is not None:
        return fit_robust_slots(run, resume=resume)
    if checkpoint is None and look is not None and run.model.views.n_views == 1 and run.config.slots_per_class > 0:
        return _train_quickly(run, FeatureSource(run.model.featurizer, run.x) if run.source is None else run.source)
    return run.train(checkpoint, resume=resume)


def _train_quickly(run: FitLoop, source: FeatureSource) -> tuple[list[float], bool]:
    """Train as the look did, in seconds; where a checkpoint is asked for, the loop that writes one trains instead."""
    config = run.config
    unit = unit_features(source, run.fitted)
    labels = run.y[torch.from_numpy(run.fitted)]
    start = first_slots(unit, labels, per_class=config.slots_per_class, seed=config.seed)
    if len(start.classes) == 0:
        return [], False
    found = train_fixed(unit, labels, start, config, progress=run.progress, log=run.log, stop=run.stop)
    run.model.head.add_slots(found.weights, found.labels)
    return list(found.losses), found.stopped


def _is_fixed(model: SlotModel, config: TrainConfig) -> bool:
    """Whether training leaves the features as they are."""
    return config.augment == "none" and not learns(model.backbone)


def _trains_otherwise(config: TrainConfig) -> bool:
    """Whether slots are trained in a way that the look at the data does not know."""
    return config.robust is not None or config.features_per_slot > 0


def _closing(closing: ClosingConfig, look: Look | None, model: SlotModel) -> ClosingConfig:
    """A fifth of the held-out matches is given up where a network that we know nothing of may have made the features.

    Those that `reach` gives up count. Only where a look at the data chooses: who gives all numbers gives this one too.
    """
    if look is None or closing.open_share is not None:
        return closing
    known = model.preprocessing.kind == "images" and not any(True for _ in model.backbone.parameters())
    return replace(closing, open_share=0.0 if known else max(0.0, 1 - (1 - _OPEN_SHARE) / closing.reach))


def _wants_cross_fit(model: SlotModel, config: TrainConfig, *, n_held_out: int) -> bool:
    """Whether more examples should be asked how far slots may vouch than are held out, and can be."""
    if _trains_otherwise(config):  # than slots are that are cross-fitted
        return False
    asks = config.closing.vouch is not None and config.closing.mode != "full" and n_held_out < ENOUGH
    return asks and _is_fixed(model, config) and model.views.n_views == 1 and config.slots_per_class > 0


def _crossed(
    rows: Tensor, labels: npt.NDArray[np.int64], config: TrainConfig, n_held_out: int, progress: Progress
) -> CrossFit:
    """Fits that leave examples out; novelty is measured in them too where it shall be judged and few are held out."""
    return cross_fit(rows, labels, config, novelty=config.held_out > 0 and n_held_out < FEW, progress=progress)


def _rows(model: SlotModel, x: RawInputs, source: FeatureSource | None) -> Tensor:
    """Features of the inputs themselves, shape (example, feature), as the backbone gives them."""
    return first_views(FeatureSource(model.featurizer, x, keep=False) if source is None else source)


def _whiten(model: SlotModel, rows: Tensor, labels: npt.NDArray[np.int64], config: TrainConfig) -> None:
    """Put a whitening, learned from the rows that are trained on, between backbone and head."""
    if not _is_fixed(model, config):
        raise UsageError("`whitening` must be left out where training changes the features. Freeze the backbone.")
    assert config.whitening is not None
    sums = ClassSums.of(rows, torch.from_numpy(labels).to(rows.device))
    model.featurizer.whitening = Whitening.of(
        sums, shrinkage=config.whitening, by=config.whitening_by, lift=config.lift
    ).to(rows.device)
    if model.featurizer.whitening.width != model.head.feature_dim:
        model.featurizer.feature_dim = model.featurizer.whitening.width
        model.head = empty_head(model.featurizer.feature_dim, config).to(rows.device)


def _fixed_features(
    model: SlotModel, x: RawInputs, config: TrainConfig, progress: Progress, ranks: Ranks
) -> FeatureSource | None:
    """The features of all views, computed once, where training cannot change them and memory can hold them."""
    if model.preprocessing.kind == "text":
        return FeatureSource(model.featurizer, x, ranks=ranks).fill(progress)
    if not _is_fixed(model, config) or not any(True for _ in model.backbone.parameters()):
        return None  # an identity or a reshape is quicker than a copy
    source = FeatureSource(model.featurizer, x, ranks=ranks)
    return source.fill(progress) if source.keeps else None


@contextmanager
def _threads_for(model: SlotModel, backbone: nn.Module | None, config: TrainConfig, *, n_labels: int) -> Iterator[None]:
    """One thread where a batch is small work: waiting for each other costs threads more, above all on busy machines."""
    before = torch.get_num_threads()
    rows = config.batch_size * min(model.views.n_views, config.sampled_views)
    work = rows * model.head.feature_dim * max(1, config.slots_per_class) * n_labels
    small = work < _SMALL_WORK and (backbone is None or not learns(backbone))
    torch.set_num_threads(1 if small else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def hold_out(labels: npt.NDArray[np.int64], share: float, seed: int) -> npt.NDArray[np.int64]:
    """Ids kept aside, sorted; none when fewer than 10 would be, since they could not calibrate anything.

    No class gives away more than half of its examples.
    """
    n = len(labels)
    count = min(round(n * share), n // 2)
    if count < _FEWEST:
        return np.zeros(0, np.int64)
    drawn = np.random.default_rng(seed).choice(n, count, replace=False)
    _, of_class, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    mine = of_class[drawn]
    order = np.argsort(mine, kind="stable")
    rank = np.empty(count, np.int64)  # how many of its class were drawn before
    rank[order] = np.arange(count) - np.searchsorted(mine[order], mine[order])
    kept = drawn[rank < sizes[mine] // 2]
    return np.sort(kept if len(kept) >= _FEWEST else kept[:0]).astype(np.int64)
