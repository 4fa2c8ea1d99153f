"""What came of a run so far, from what its files say of themselves."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from protocols.bulk.run import Run
from protocols.bulk.work import answers_of, failures
from protocols.data.parquet import arrow


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
    """

    shards: int
    of: int
    rows: int
    counts: dict[str, int]
    failed: dict[str, str]
    generation: int | None

    def document(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def outcome(out: Path, run: Run) -> Outcome:
    """Count what is there; of each file its last kilobytes are read.

    Raises
    ------
    DataError
        If answers are damaged.
    """
    pa, told = arrow(), []
    for shard in run.shards:
        path = answers_of(out, shard)
        if path.exists():
            told.append(json.loads(pa.parquet.read_metadata(path).metadata[b"slots"]))
    counts: Counter[str] = Counter()
    for it in told:
        counts.update(it["counts"])
    generation = told[0]["generation"] if told else None
    rows = sum(it["rows"] for it in told)
    return Outcome(len(told), len(run.shards), rows, dict(counts), failures(out, run), generation)
