"""The data sets of the suite: what the user names, what lies in the data folder, and a folder of further archives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from protocols.data.arrays import load_archive
from protocols.data.dataset import Dataset
from protocols.data.loading import default_data_dir
from protocols.harness.encoders import make_encoder
from protocols.harness.protocol import Setting
from slots.errors import DataError

Features = npt.NDArray[np.float32]

NAMED = ("mnist", "fashion_mnist", "cifar10", "notmnist")
"""Sets that take part where ``NAME.npz`` lies in the data folder."""

_NETWORK_DATA = "cifar10"  # what the networks with weights of their own were trained on


@dataclass(frozen=True)
class Source:
    """A data set of the suite.

    Parameters
    ----------
    data : Dataset
        With labels in both parts; images or feature rows.
    foreign : float32 array of shape (example, feature), optional
        Rows that belong to none of the classes, where an archive brings some as ``x_out``.
    """

    data: Dataset
    foreign: Features | None = None

    @property
    def name(self) -> str:
        """As tables show it."""
        return self.data.name


def source_files(setting: Setting) -> list[Path]:
    """Every file beside the user's data that the suite may read: named sets that are there, then archives by name."""
    named = [path for name in NAMED if name != setting.data.name and (path := _named(setting, name)).exists()]
    return named + _archives(setting)


def find_sources(setting: Setting, wanted: Callable[[str], bool]) -> tuple[list[Source], dict[str, str]]:
    """Load all data sets, and name what is missing.

    Parameters
    ----------
    setting : Setting
        Its data comes first. ``data_dir`` is the folder of the `NAMED` sets, the option ``archives`` that of others;
        with weights, the features of the network on CIFAR-10 are one more.
    wanted : callable
        From the name of a data set to whether it is asked for; others are neither read nor called missing.

    Returns
    -------
    sources : list of Source
        In the order of the tables.
    missing : dict
        Name to why it is not there.

    Raises
    ------
    DataError
        If a file is there and damaged, or without labels.
    """
    sources = [Source(_two_parts(setting.data))] if wanted(setting.data.name) else []
    missing = {}
    for name in (it for it in NAMED if it != setting.data.name and wanted(it)):
        if (path := _named(setting, name)).exists():
            sources.append(Source(_two_parts(load_archive(path, name=name))))
        else:
            missing[name] = f"no {path.name} in the data folder"
    network = f"{_NETWORK_DATA}, {setting.backbone if setting.weights else 'features of a network'}"
    if wanted(network):
        if setting.weights is None:
            missing[network] = "no weights: pass --backbone cifar_resnet20 --weights FILE"
        elif not (path := _named(setting, _NETWORK_DATA)).exists():
            missing[network] = f"no {path.name} in the data folder"
        else:
            sources.append(_embedded(_two_parts(load_archive(path, name=network)), setting))
    if not setting.options.get("archives"):
        missing["archives of embeddings"] = "no folder: pass --option archives=FOLDER"
    return sources + [_archive(path) for path in _archives(setting) if wanted(path.stem)], missing


def _named(setting: Setting, name: str) -> Path:
    """Where a named set lies, if it does."""
    return (setting.data_dir or default_data_dir()) / f"{name}.npz"


def _archives(setting: Setting) -> list[Path]:
    """Archives of the user's folder, by name."""
    chosen = str(setting.options.get("archives") or "")
    if not chosen:
        return []
    found = sorted(Path(chosen).glob("*.npz"))
    if not found:
        raise DataError(f"`archives` must be a folder with .npz archives, got none in {chosen!r}. Name another folder.")
    return found


def _archive(path: Path) -> Source:
    """An archive with labels, and the foreign rows it may bring."""
    data = _two_parts(load_archive(path))
    with np.load(path, allow_pickle=False) as archive:
        if "x_out" not in archive.files:
            return Source(data)
        foreign = archive["x_out"]
    if foreign.ndim != 2 or foreign.shape[1:] != data.shape or foreign.dtype.kind not in "fiu":
        raise DataError(
            f"`{path}: x_out` must be rows of {data.shape} numbers, got {foreign.dtype} of shape {foreign.shape}. "
            "Embed the foreign inputs like the others."
        )
    return Source(data, np.ascontiguousarray(foreign, np.float32))


def _two_parts(data: Dataset) -> Dataset:
    """Labelled examples only; where one part has none, the other is cut in two halves."""
    parts = [(x[y >= 0], y[y >= 0]) for x, y in ((data.x_train, data.y_train), (data.x_test, data.y_test))]
    if not sum(len(y) for _, y in parts):
        raise DataError(f"`data` must have labels to measure with, got none in {data.name!r}. Add y_train and y_test.")
    if any(len(y) == 0 for _, y in parts):
        x, y = max(parts, key=lambda it: len(it[1]))
        order = np.random.default_rng(0).permutation(len(y))
        first, second = order[: len(y) // 2], order[len(y) // 2 :]
        parts = [(x[first], y[first]), (x[second], y[second])]
    (x_train, y_train), (x_test, y_test) = parts
    return replace(data, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)


def _embedded(data: Dataset, setting: Setting) -> Source:
    """A data set of images as features of the setting's frozen network."""
    encoder = make_encoder(setting, data.x_train[:1], data.y_train[:1], 0)
    n = int(setting.options.get("network_examples", 0)) or len(data.x_train)
    x, x_test = encoder(data.x_train[:n]), encoder(data.x_test[:n])
    return Source(replace(data, x_train=x, y_train=data.y_train[:n], x_test=x_test, y_test=data.y_test[:n]))
