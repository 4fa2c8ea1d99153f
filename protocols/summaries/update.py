"""What an update did and reached: the record that ``slots update --json`` prints, and the columns of its query list."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

SCHEMA = 1
"""Version of `UpdateSummary` as JSON."""

COLUMNS = ("example", "label", "guess", "covers", "check")
"""Columns of ``queries.csv``: row of the data, the label to fill in, the model's own guess, how many of the unmatched
this label covers that those above do not, and a check sum of the example; for text also the ``text``."""


@dataclass(frozen=True)
class Accuracies:
    """Accuracy on one labelled set; shares in [0, 1].

    Parameters
    ----------
    n : int
        Examples with a known label.
    before, after : float
        By the model before and after the update.
    control : float
        By the model before, with the asked labels known and no slot added.
    """

    n: int
    before: float
    after: float
    control: float


@dataclass(frozen=True)
class UpdateSummary:
    """What an update did and reached, in the order it is printed.

    ``stream`` is all of the new data, ``never_queried`` what of it was not asked about, ``held_out`` the other part
    of the data set; None where no label is known to measure with. Known labels are never learned from.
    ``purity`` is the share of what a query stands for that has its label, as measured on remembered examples;
    ``scope`` and ``verdict`` what the judgement left of the plan, and why (`slots.update.UpdateReport`).
    """

    schema: int
    command: str
    data: str
    data_digest: str
    part: str
    n_examples: int
    unmatched: int
    queries: int
    covered: float
    bound: float
    labels_used: int
    contradictions: list[dict[str, Any]]
    slots_added: int
    clusters_added: int
    generation: int
    changed_matched_answers: int
    stream: Accuracies | None
    never_queried: Accuracies | None
    held_out: Accuracies | None
    queries_file: str | None
    page: str | None
    dry_run: bool
    elapsed_s: float
    purity: float | None = None
    scope: str = ""
    verdict: str = ""
