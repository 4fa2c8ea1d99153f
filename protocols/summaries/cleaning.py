"""What ``slots clean`` was asked, what it found, and the record that ``--json`` prints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from slots.errors import UsageError
from slots.label_errors.detection import LabelErrors
from slots.label_errors.evidence import Evidence
from slots.shapes import Ids, RawInputs

SCHEMA = 1
"""Version of `CleaningSummary` as JSON."""


@dataclass(frozen=True)
class CleaningPlan:
    """What ``slots clean`` was asked: which part, how long a list, and by which network.

    Parameters
    ----------
    part : {"train", "test"}
        Part of the data to examine.
    limit : int, optional
        Most examples to list, at most half of all. Default: as many as labels are wrong by the estimate.
    backbone : str, optional
        Without a model: the network to train. Default: ``cnn`` for images; feature rows have none.
    seed : int
        Of the training and everything that is drawn.
    device : str
        Name of the torch device that it runs on.
    """

    part: Literal["train", "test"] = "train"
    limit: int | None = None
    backbone: str | None = None
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise UsageError(f"`limit` must be >= 1, got {self.limit}. Leave it out to list by the estimate.")


@dataclass(frozen=True)
class SuspectLabels:
    """Labels that are likely wrong, with the evidence that the list and the page are made of.

    Parameters
    ----------
    x : array of shape (example, ...)
        All examples of the part, labelled or not.
    rows : int64 array of shape (labelled,)
        The labelled ones; evidence and errors count in these.
    y : int64 array of shape (labelled,)
        Given labels, positions in ``names``.
    names : tuple of str
        Name of each label in ``y``.
    errors : LabelErrors
        Suspicion and suggested label of each labelled example.
    evidence : list of Evidence
        Of the listed examples, the most suspicious first.
    slot_labels : tuple of str
        Name of each slot's label.
    exemplars : int64 array of shape (slot,)
        The trusted labelled example (a place in ``rows``) that is nearest to each slot; -1 for none.
    """

    x: RawInputs
    rows: Ids
    y: Ids
    names: tuple[str, ...]
    errors: LabelErrors
    evidence: list[Evidence]
    slot_labels: tuple[str, ...]
    exemplars: Ids


@dataclass(frozen=True)
class Confused:
    """A pair of labels that stand for each other: how many labels ``given`` are really ``true``, by the estimate."""

    true: str
    given: str
    count: int
    share: float


@dataclass(frozen=True)
class CleaningSummary:
    """What ``slots clean`` found, in the order it is printed."""

    schema: int
    command: str
    data: str
    data_digest: str
    part: str
    model: str | None
    backbone: str
    n_examples: int
    estimated_errors: int
    listed: int
    n_slots: int
    slots_held_back: int
    confused: list[Confused]
    table: str
    page: str
    seed: int
    elapsed_s: float
