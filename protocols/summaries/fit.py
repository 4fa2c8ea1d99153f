"""What a fit reached: the record that ``slots fit --json`` prints, the model keeps, and the report shows."""

from __future__ import annotations

from dataclasses import dataclass

SCHEMA = 1
"""Version of `FitSummary` as JSON."""


@dataclass(frozen=True)
class FitSummary:
    """What a fit reached, in the order it is printed; shares lie in [0, 1], None where there was nothing to measure."""

    schema: int
    command: str
    data: str
    data_digest: str
    backbone: str
    n_slots: int
    slots_per_class: dict[str, int]
    train_accuracy: float | None
    train_matched: float | None
    train_precision: float | None
    test_accuracy: float | None
    test_matched: float | None
    test_ambiguous: float | None
    test_accuracy_matched: float | None
    contradictions: list[int]
    interrupted: bool
    elapsed_s: float
    epochs: int
    seed: int
    device: str
    model: str
    report: str
    versions: dict[str, str]
    source_digest: str = ""
