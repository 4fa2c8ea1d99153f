"""What came of a run so far, from what its files say of themselves."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from protocols.bulk.answering import told_by
from protocols.bulk.proposal import Proposed
from protocols.bulk.run import Run, answers_of
from protocols.bulk.work import failures


@dataclass(frozen=True)
class Outcome:
    """Counts of a run.

    Parameters
    ----------
    shards, of : int
        Shards that have answers, and all of the run.
    rows : int
        Rows that have answers.
    counts : dict of str to int
        Rows by what was said of them.
    failed : dict of str to str
        Why shards could not be answered, by their names.
    generation : int or None
        Generation that answered; None before the first shard.
    proposal : Proposed, optional
        Of ``propose``, once it is found.
    """

    shards: int
    of: int
    rows: int
    counts: dict[str, int]
    failed: dict[str, str]
    generation: int | None
    proposal: Proposed | None = None

    def document(self) -> dict[str, Any]:
        """As JSON values."""
        told = asdict(self)
        proposal = told.pop("proposal")
        return told if proposal is None else {**told, **proposal}


def outcome(out: Path, run: Run) -> Outcome:
    """Count what is there; of each file its last kilobytes are read.

    Raises
    ------
    DataError
        If answers are damaged.
    """
    told = []
    for shard in run.shards:
        path = answers_of(out, run, shard)
        if path.exists():
            told.append(told_by(path))
    counts: Counter[str] = Counter()
    for it in told:
        counts.update(it["counts"])
    generation = told[0]["generation"] if told else None
    rows = sum(it["rows"] for it in told)
    return Outcome(len(told), len(run.shards), rows, dict(counts), failures(out, run), generation)
