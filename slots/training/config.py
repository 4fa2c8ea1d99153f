"""How to train: every number in one frozen dataclass."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import get_args

from slots.closing.config import ClosingConfig
from slots.errors import UsageError
from slots.features.whitening import By
from slots.robust.config import RobustConfig


@dataclass(frozen=True)
class TrainConfig:
    """How to train; every number can be set from the command line or Python.

    Parameters
    ----------
    epochs : int, default 12
        Passes over the training part, >= 0 (0 keeps the initial slots).
    batch_size : int, default 500
        It also decides how many slots the growing way adds: thresholds come from the batch.
    slots_per_class : int, default 30
        Slots a class to start with, from k-means on the features. 0: start with none and *grow* them in the first
        epochs, by covering in each batch what is unmatched (the method's original way).
    grow_epochs : int, default 1
        Epochs in which slots are added; only with ``slots_per_class=0``.
    slot_lr : float, default 3e-3
        Peak learning rate of the slot weights (Adam; plain SGD with ten times it while growing).
    scale, beta : float
        Factor on the pooled cosine, and inverse temperature of the pooling (`IncrementalNeuralHashing`).
    views : str, default "none"
        Views matched in training and ever after (`slots.features.parse_views`).
    sampled_views : int, default 9
        Views used in a training step, drawn anew for each batch, when there are more.
    augment : str, default "none"
        Random changes used in training only, one drawn for each example.
    backbone_lr, weight_decay : float
        Peak learning rate and decoupled weight decay of the backbone (AdamW, warm-up over the first fifth).
    matrix_lr : float, default 0.0
        Peak step of Muon for the backbone's filters and matrices, relative to their norm; its other parameters keep
        AdamW. 0: AdamW for all. 0.24 suits nets with a normalisation after each convolution.
    label_smoothing : float, default 0.0
        Share of the target that goes to all labels alike, in [0, 1).
    margin : float, default 0.0
        Cosine by which the own class must lead in the loss: wider precision caps, so more is matched.
    autocast : bool, default False
        Run the backbone in bfloat16 during training, on a GPU and on a CPU with instructions for it (AVX512-BF16 or
        AMX); others take float32, which is several times as fast there. Scores and thresholds stay float32.
    half_products : bool, default False
        Multiply features with the slots in bfloat16 during training, where ``autocast`` would run the backbone in it.
        Thresholds and answers stay float32.
    held_out : float, default 0.05
        Share of the training data kept aside: it sets the reach of support caps and measures each slot's precision.
    precision : float in (0, 1], default 1.0
        Wanted precision of a slot on the training data.
    standardize : bool, default False
        Subtract the channels' mean and divide by their deviation before the backbone.
    whitening : float, optional
        Shrinkage in (0, 1] of a whitening of the features before the sphere (`slots.features.whitening`); only where
        training does not change the features. Default: none.
    whitening_by : {"covariance", "correlation"}, default "covariance"
        With ``correlation`` the whitening divides each feature by its spread within classes first, for tables whose
        columns have units of their own.
    lift : float, default 0.0
        Length of a constant feature behind the whitening, in root mean squares of the lengths of whitened rows, so that
        few features are told apart by their length too. 0 adds none.
    robust : RobustConfig, optional
        Train the certified radius of answers instead of the cross-entropy (`slots.robust`), where features are the
        inputs themselves: pixels, or feature rows. Inputs that no slot matches then get the label of their nearest
        slot, and ``beta``, ``scale`` and ``margin`` are not used. Default: none.
    features_per_slot : int, default 0
        Features that a slot may use, >= 1; the others are dropped in the course of the training, and no weight is below
        0, so that a score is a sum of so many shares. For features that mean something each, such as those of the
        backbone ``parts``. 0: all features, of either sign. Slots that the closing pass or an update adds use what
        their examples show.
    closing : ClosingConfig
        How the closing pass turns trained weights into exact caps.
    seed : int, default 0
        Where the held-out part, the order of the batches and the initial slots come from.
    device : str, default "cpu"
        Where the fit runs, for example ``"cuda"``.
    """

    epochs: int = 12
    batch_size: int = 500
    slots_per_class: int = 30
    grow_epochs: int = 1
    slot_lr: float = 3e-3
    scale: float = 60.0
    beta: float = 20.0
    views: str = "none"
    sampled_views: int = 9
    augment: str = "none"
    backbone_lr: float = 3e-3
    weight_decay: float = 5e-2
    matrix_lr: float = 0.0
    label_smoothing: float = 0.0
    margin: float = 0.0
    autocast: bool = False
    half_products: bool = False
    held_out: float = 0.05
    precision: float = 1.0
    standardize: bool = False
    whitening: float | None = None
    whitening_by: By = "covariance"
    lift: float = 0.0
    robust: RobustConfig | None = None
    features_per_slot: int = 0
    closing: ClosingConfig = field(default_factory=ClosingConfig)
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name, low in [
            ("epochs", 0),
            ("batch_size", 1),
            ("slots_per_class", 0),
            ("grow_epochs", 1),
            ("sampled_views", 1),
            ("features_per_slot", 0),
        ]:
            if getattr(self, name) < low:
                raise UsageError(f"`{name}` must be >= {low}, got {getattr(self, name)}. Pass a larger number.")
        if not 0 <= self.held_out < 1:
            raise UsageError(f"`held_out` must lie in [0, 1), got {self.held_out}. 0.05 keeps one example in twenty.")
        if not 0 < self.precision <= 1:
            raise UsageError(f"`precision` must lie in (0, 1], got {self.precision}. Pass 1.0 for no tolerance.")
        if self.whitening is not None and not 0 < self.whitening <= 1:
            raise UsageError(f"`whitening` must lie in (0, 1], got {self.whitening}. 0.1 keeps most of the covariance.")
        if self.whitening_by not in get_args(By):
            raise UsageError(
                f"`whitening_by` must be covariance or correlation, got {self.whitening_by!r}. Pass one of them."
            )
        if self.lift < 0 or (self.lift > 0 and self.whitening is None):
            raise UsageError(
                f"`lift` must be >= 0, and 0 without a whitening, got {self.lift}. whitening=1.0 only centres."
            )
        if self.features_per_slot and (self.whitening is not None or self.robust is not None):
            raise UsageError(
                "`features_per_slot` must be 0 with `whitening` and `robust`: the one mixes the features, the other "
                "trains all of them. Leave one of them out."
            )
        rates = self.backbone_lr, self.matrix_lr
        if self.scale <= 0 or self.slot_lr <= 0 or min(self.beta, self.margin, *rates) < 0:
            raise UsageError(
                "`scale` and `slot_lr` must be > 0, `beta`, `margin`, `backbone_lr` and `matrix_lr` >= 0. Change them."
            )
        if self.slots_per_class == 0 and self.epochs == 0:
            raise UsageError(
                "`epochs` must be >= 1 when slots are grown, got 0. Pass slots_per_class to start with some."
            )
