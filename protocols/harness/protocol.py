"""What a protocol is: a name, the columns of its table, its peers, and one function from a setting and a seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from protocols.data.dataset import Dataset
from protocols.harness.outcome import Column, SeedOutcome
from slots.progress import Progress


@dataclass(frozen=True)
class Setting:
    """What ``slots run`` was asked: data, features, peers and options.

    Parameters
    ----------
    data : Dataset
        Training and test part, with labels.
    backbone : str
        ``none`` for feature rows; ``pixels``; ``cnn`` (a plain network trained on what may be seen); a name of
        `backbones.BACKBONES` (trained likewise); ``cifar_resnetN`` and others with ``weights``. See `make_encoder`.
    weights : str, optional
        Weights of a frozen network.
    model : Path, optional
        A fitted model, whose features are used instead of a backbone's.
    peers : tuple of str
        Of the protocol's peers, those to run.
    options : mapping
        ``KEY=VALUE`` of the command line, checked against the protocol's `defaults`.
    device : str
        Name of a torch device.
    cache : Path, optional
        Folder where what is costly and independent of the methods (features) may be kept between runs.
    data_dir : Path, optional
        Where named data sets lie, for protocols that need further ones.
    """

    data: Dataset
    backbone: str = "pixels"
    weights: str | None = None
    model: Path | None = None
    peers: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    device: str = "cpu"
    cache: Path | None = None
    data_dir: Path | None = None


@dataclass(frozen=True)
class Protocol:
    """A benchmark: a claim, its metrics, its peers, and the function that measures one seed.

    Parameters
    ----------
    name : str
        As in ``slots run NAME``.
    title : str
        Heading of its pages.
    about : str
        What is measured and how, a paragraph for the pages; says what each column means.
    columns : sequence of Column
        Figures of each row, in the table's order.
    headline : str
        Key of the column that methods are ranked by.
    peers : tuple of str
        Short names for ``--peers``; all are run by default.
    defaults : mapping
        Options and their default values; an option of another name or type is an error.
    run_seed : callable
        ``run_seed(setting, seed, progress)``. Deterministic: equal arguments give equal rows, times aside.
    backbone : str, default "pixels"
        For images, where the user names none.
    files : callable, optional
        From a setting to the files that are read beside its data, for a protocol over many data sets: their content
        decides whether a kept seed is the same. Default: none.
    findings : callable, optional
        From the outcomes of all seeds to sentences about them together. Default: none.
    default_data : str, default ""
        What ``--data`` is where the user names nothing; empty: it must be named.
    """

    name: str
    title: str
    about: str
    columns: Sequence[Column]
    headline: str
    peers: tuple[str, ...]
    defaults: Mapping[str, Any]
    run_seed: Callable[[Setting, int, Progress], SeedOutcome]
    backbone: str = "pixels"
    files: Callable[[Setting], Sequence[Path]] = lambda _: ()
    findings: Callable[[Sequence[SeedOutcome]], Sequence[str]] = lambda _: ()
    default_data: str = ""

    def option(self, setting: Setting, key: str) -> Any:
        """The user's value of an option, else the default."""
        return setting.options.get(key, self.defaults[key])
