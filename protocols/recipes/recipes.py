"""Good defaults: for each backbone, and for each data set on which it was tuned, what to train and how."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Final

from protocols.recipes.weights import TrainedBackbone
from slots.closing.config import ClosingConfig
from slots.errors import UsageError
from slots.parts.choosing import PartConfig
from slots.robust import Norm
from slots.training.config import TrainConfig
from slots.training.defaults import AutoConfig


@dataclass(frozen=True)
class Recipe:
    """Hyperparameters of a fit: options of the backbone and of the training.

    Parameters
    ----------
    backbone : dict
        Keyword options of `backbones.build`.
    train : TrainConfig
        Epochs, rates, slots and closing of the fit.
    trained : TrainedBackbone, optional
        Weights to start from. Default: fresh ones.
    fine_tune : bool, default False
        Whether trained weights are trained further.
    reconstruction : float, default 0.0
        Weight of the loss that makes the winning units' gradients look like the inputs (>= 0).
    detach : bool, default False
        With ``reconstruction``: the backbone learns from that loss alone, without labels.
    stabilize : float, default 0.0
        Weight of the loss that makes a slot's template the same for all inputs (>= 0).
    parts : PartConfig, optional
        How parts are chosen, for a backbone that has them (`slots.parts.fit_parts`).
    reads_data : bool, default False
        Whether a look at the data chooses how to train, where nothing changes the features: of ``train`` only what the
        user chose counts then.
    given : frozenset of str
        Fields of ``train`` that the user chose, beside its closing.
    """

    backbone: dict[str, Any] = field(default_factory=dict)
    train: TrainConfig = field(default_factory=TrainConfig)
    trained: TrainedBackbone | None = None
    fine_tune: bool = False
    reconstruction: float = 0.0
    detach: bool = False
    stabilize: float = 0.0
    parts: PartConfig | None = None
    reads_data: bool = False
    given: frozenset[str] = frozenset()

    @property
    def config(self) -> TrainConfig | AutoConfig:
        """What a fit takes."""
        if not self.reads_data:
            return self.train
        # Views of a recipe are left out too: few examples can vouch for their answers only one by one, without views.
        chosen = {name: getattr(self.train, name) for name in self.given}
        return AutoConfig(TrainConfig(closing=self.train.closing, **chosen), self.given)


_PIXELS = TrainConfig(epochs=20, slots_per_class=30, slot_lr=2e-3, scale=80.0, margin=0.02, views="shift1")

_MNIST = replace(
    _PIXELS,
    scale=100.0,
    margin=0.005,
    views="rotate12*shift1",
    augment="zoom8*rotate5",
    closing=ClosingConfig(min_gain=30),  # 1 in 2,000
)

_IMAGES = TrainConfig(
    epochs=12,
    batch_size=250,
    slots_per_class=10,
    scale=20.0,
    beta=10.0,
    views="flip",
    sampled_views=1,  # training flips at random already
    augment="flip*shift2",
    autocast=True,
    backbone_lr=3e-3,
    weight_decay=5e-2,
    standardize=True,
)

_STROKES = replace(_IMAGES, epochs=6, views="none", augment="shift2", standardize=False)
_PARTS = replace(_IMAGES, backbone_lr=4e-3)
_PART_STROKES = replace(_STROKES, backbone_lr=4e-3)
_DIGITS = replace(_PART_STROKES, epochs=40, batch_size=50, augment="shift1")

_SHORT = replace(_STROKES, margin=0.2, augment="shift1", autocast=False, weight_decay=0.0)
"""For nets of a known constant: inputs as they are, one view, and a margin, which becomes a radius."""

_FEW = TrainConfig(
    epochs=8,
    batch_size=250,
    slots_per_class=10,
    scale=30.0,
    beta=30.0,
    slot_lr=6e-3,
    backbone_lr=6e-3,
    weight_decay=1e-2,
    augment="shift1",
    features_per_slot=10,
)
"""For slots of few parts, each at a place of its own."""

_NETWORK = TrainConfig(epochs=20, slots_per_class=20, scale=40.0, slot_lr=2e-3, views="flip")

_POOLED: dict[str, Any] = {
    "stem": "whitening",
    "stem_kernel": 2,
    "block": "pool",
    "across": 0,
    "a_x": 2.0,
    "a_l": 1.0,
    "key": "detached",
    "pooling": "max",
}
"""Options of `explor` under which a CPU learns most in a given time."""

_UNFOLDING: dict[str, Any] = {
    "stem": "whitening",
    "widths": [64, 128, 192],
    "windows": [3, 3, 3],
    "strides": [2, 2, 2],
    "residual": [0, 1, 1],
    "pooling": "max",
}

RECIPES: dict[tuple[str, str], Recipe] = {
    ("cnn", ""): Recipe(train=replace(_STROKES, backbone_lr=1e-3)),
    ("cnn", "digits"): Recipe(train=replace(_DIGITS, backbone_lr=2e-3)),
    ("none", ""): Recipe(train=TrainConfig(epochs=20), reads_data=True),
    ("pixels", ""): Recipe(train=_PIXELS, reads_data=True),
    ("pixels", "digits"): Recipe(train=replace(_PIXELS, epochs=60, batch_size=100, slots_per_class=10)),
    ("pixels", "mnist"): Recipe(train=_MNIST),
    ("pixels", "fashion_mnist"): Recipe(train=replace(_PIXELS, slots_per_class=50, views="shift1,flip")),
    ("explor", ""): Recipe(train=_IMAGES),
    ("explor", "digits"): Recipe(train=replace(_STROKES, epochs=40, batch_size=50, augment="shift1")),
    ("explor", "mnist"): Recipe(
        _POOLED | {"widths": [24, 48, 96]},
        replace(
            _STROKES,
            epochs=12,
            slots_per_class=5,
            matrix_lr=0.24,
            augment="shift2,rotate10*zoom10*shift1",
            closing=ClosingConfig(min_gain=60),  # 1 in 1,000
        ),
    ),
    ("explor", "fashion_mnist"): Recipe(train=replace(_IMAGES, epochs=6, augment="flip*shift1")),
    ("explor", "cifar10"): Recipe(_POOLED | {"widths": [48, 128, 128]}, replace(_IMAGES, epochs=13, matrix_lr=0.24)),
    ("unfolding", ""): Recipe(_UNFOLDING, replace(_IMAGES, matrix_lr=0.24)),
    ("unfolding", "digits"): Recipe(
        {"widths": [32, 64, 96], "windows": [3, 3, 3], "strides": [1, 2, 2]},
        replace(_STROKES, epochs=40, batch_size=50, augment="shift1", matrix_lr=0.1),
    ),
    ("unfolding", "mnist"): Recipe(
        {"widths": [32, 64, 96], "windows": [5, 3, 3], "strides": [2, 2, 2], "residual": [0, 0, 1], "pooling": "max"},
        replace(_STROKES, matrix_lr=0.24),
    ),
    ("unfolding", "cifar10"): Recipe(_UNFOLDING, replace(_IMAGES, epochs=14, matrix_lr=0.24)),
    ("positive", ""): Recipe({"widths": [32, 64, 128]}, train=replace(_IMAGES, backbone_lr=1e-2)),
    ("positive", "cifar10"): Recipe(
        {"widths": [48, 96, 192], "first": "whitening"}, replace(_IMAGES, epochs=14, matrix_lr=0.24)
    ),
    ("positive", "digits"): Recipe(train=replace(_STROKES, epochs=40, batch_size=50, augment="shift1")),
    ("positive", "mnist"): Recipe(
        {"widths": [32, 64, 128]}, replace(_STROKES, scale=100.0, beta=20.0, backbone_lr=1e-2)
    ),
    ("disjunction", ""): Recipe({"parts": 480, "conjunctions": 96}, _PARTS),
    ("disjunction", "digits"): Recipe({"parts": 480, "conjunctions": 96}, _DIGITS),
    ("disjunction", "mnist"): Recipe({"parts": 480, "conjunctions": 96}, _PART_STROKES),
    ("directional", ""): Recipe({"units": 240}, _PARTS),
    ("directional", "digits"): Recipe({}, _DIGITS),
    ("directional", "mnist"): Recipe({}, _PART_STROKES),
    ("gumbel", ""): Recipe({"units": 240}, _PARTS),
    ("gumbel", "digits"): Recipe({"units": 120}, _DIGITS),
    ("gumbel", "mnist"): Recipe({"units": 120}, _PART_STROKES),
    ("lipschitz", ""): Recipe(train=_SHORT),
    ("lipschitz", "digits"): Recipe(train=replace(_SHORT, epochs=40, batch_size=50, augment="shift1")),
    ("parts", ""): Recipe(
        train=replace(_FEW, augment="flip*shift2", standardize=True), parts=PartConfig(max_parts=200)
    ),
    ("parts", "digits"): Recipe(
        {"channels": 60, "width": 32, "receptive_field": 5},
        replace(_FEW, epochs=40, batch_size=50, features_per_slot=5),
        parts=PartConfig(),
    ),
    ("parts", "mnist"): Recipe(train=_FEW, parts=PartConfig()),
    ("parts", "fashion_mnist"): Recipe(train=replace(_FEW, augment="flip*shift1"), parts=PartConfig()),
    ("parts", "cifar10"): Recipe(
        {"channels": 200, "receptive_field": 17, "width": 128, "where": "anywhere", "first": "pooled"},
        replace(
            _IMAGES,
            epochs=24,
            matrix_lr=0.24,
            slots_per_class=2,
            slot_lr=6e-3,
            features_per_slot=10,
            views="none",
        ),
        parts=PartConfig(max_parts=200, elsewhere=0.3, times=12, features_per_slot=5, slots_per_class=10, bag=2 / 3),
    ),
    ("pretrained", ""): Recipe({"network": "cifar_resnet20"}, _NETWORK, reads_data=True),
    ("pretrained", "cifar10"): Recipe({"network": "cifar_resnet20"}, _NETWORK),
}
"""By backbone and data set; the empty data set is for all others. ``none`` is for feature rows."""

_STILL: dict[str, Any] = {"gate": "silu", "pooling": "mean"}
"""Soft gates; the top window takes all places, so that nothing is looked for elsewhere from input to input."""

READABLE: dict[str, Recipe] = {
    "": Recipe(
        _STILL | {"widths": [48, 96, 128, 128], "windows": [5, 3, 3, 4], "strides": [2, 2, 2, 4]},
        replace(_IMAGES, matrix_lr=0.24),
        stabilize=1.0,
    ),
    "digits": Recipe(
        _STILL | {"widths": [32, 64, 64], "windows": [3, 3, 4], "strides": [1, 2, 4]},
        replace(_STROKES, epochs=40, batch_size=50, augment="shift1", matrix_lr=0.1),
        stabilize=1.0,
    ),
    "mnist": Recipe(
        _STILL | {"widths": [32, 64, 64], "windows": [7, 3, 7], "strides": [2, 2, 7]},
        replace(_STROKES, matrix_lr=0.24),
        stabilize=1.0,
    ),
}
"""Of `unfolding`, by data set: what makes the template of a slot the same for any input, by measurement
(``benchmarks/readable.py``)."""

_LONG = replace(_IMAGES, epochs=30, batch_size=500, matrix_lr=0.24, label_smoothing=0.1)

GPU_RECIPES: dict[tuple[str, str], Recipe] = {
    ("explor", "cifar10"): Recipe(
        _POOLED | {"widths": [64, 256, 256]},
        replace(_LONG, epochs=56, augment="flip*shift3", views="flip*cross1"),
    ),
    ("unfolding", "cifar10"): Recipe(_UNFOLDING | {"widths": [128, 256, 384]}, _LONG),
    ("positive", "cifar10"): Recipe({"widths": [128, 256, 512], "first": "whitening"}, _LONG),
}
"""Larger nets and longer training, used on a GPU in place of the recipe for a CPU."""


_ROBUST = TrainConfig(epochs=24, batch_size=250, slots_per_class=200)
_ROBUST_RATES: Final[dict[Norm, float]] = {"l2": 8e-4, "linf": 4.4e-4}


def for_certificates(recipe: Recipe, norm: Norm, *, images: bool) -> Recipe:
    """The recipe for training on certified radii: many slots, small steps, one view, and nothing left to a look.

    Parameters
    ----------
    recipe : Recipe
        Of the backbone and data set; its options of the backbone stay.
    norm : {"l2", "linf"}
        How changes are measured.
    images : bool
        Whether inputs are images, half of which are moved by up to one pixel in training.
    """
    train = replace(_ROBUST, slot_lr=_ROBUST_RATES[norm], augment="shift1" if images else "none")
    return replace(recipe, train=train, reads_data=False)


def from_trained(recipe: Recipe, trained: TrainedBackbone, *, fine_tune: bool) -> Recipe:
    """The recipe that starts from trained weights.

    Parameters
    ----------
    recipe : Recipe
        Of the backbone and data set.
    trained : TrainedBackbone
        Weights of this backbone, learned on this data set.
    fine_tune : bool
        Train the backbone further, with small steps. Otherwise it stays as it is and only the head learns, which takes
        as long as looking at the images once.
    """
    train = recipe.train
    if fine_tune:
        gentle = replace(train, epochs=max(1, train.epochs // 3), backbone_lr=train.backbone_lr / 10)
        gentle = replace(gentle, matrix_lr=train.matrix_lr / 10)
        return replace(recipe, backbone=trained.options, trained=trained, train=gentle, fine_tune=True)
    head_only = replace(train, epochs=10, augment="none", autocast=False)
    return replace(recipe, backbone=trained.options, trained=trained, train=head_only)


def find_readable(backbone: str, data: str) -> Recipe:
    """Recipe for slots whose templates hold for any input.

    Parameters
    ----------
    backbone : str
        Only ``"unfolding"`` has such recipes.
    data : str
        Name of the data set.

    Raises
    ------
    UsageError
        If it is another backbone.
    """
    if backbone != "unfolding":
        raise UsageError(
            f"`readable` must come with images and the backbone unfolding, got {backbone}. Leave it out, or add "
            "--stabilize 1 to the backbone of your choice."
        )
    return READABLE.get(data) or READABLE[""]


def find_recipe(backbone: str, data: str, device: str = "cpu") -> Recipe:
    """Recipe for a backbone on a data set: the tuned one, or the backbone's own default.

    Parameters
    ----------
    backbone : str
        A name of `backbones.build`, or ``"none"`` for feature rows.
    data : str
        Name of the data set.
    device : str, default "cpu"
        Name of a torch device; some data sets have a recipe of their own on a GPU.

    Returns
    -------
    Recipe
    """
    if device.startswith("cuda") and (found := GPU_RECIPES.get((backbone, data))):
        return found
    return RECIPES.get((backbone, data)) or RECIPES.get((backbone, "")) or Recipe()
