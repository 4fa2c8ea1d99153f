"""What a proposal over shards finds between its passes: the candidates, and the picks among them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from protocols.bulk.answering import read_answers, told_by
from protocols.bulk.run import ASIDE
from slots.storage.atomic import write_text


@dataclass(frozen=True)
class Candidates:
    """Unmatched rows that may be asked about, in the order of files and rows.

    Parameters
    ----------
    files : int32 array of shape (candidate,)
        Place of each one's file among those of the run.
    rows : int64 array of shape (candidate,)
        Number of its row in the file.
    features : float32 array of shape (candidate, feature)
        Of its first view.
    radius : float
        Of all caps, radians.
    """

    files: npt.NDArray[np.int32]
    rows: npt.NDArray[np.int64]
    features: npt.NDArray[np.float32]
    radius: float


@dataclass(frozen=True)
class Proposed:
    """What to label first, and what that is worth.

    Parameters
    ----------
    unmatched : int
        Rows that no slot matches.
    candidates : int
        Those of them that could become queries.
    queries : int
        Rows to label.
    covered : int
        Unmatched rows within their caps.
    next_gain : int
        What one more query would cover.
    bound : int
        No choice of as many candidates covers more.
    radius : float
        Of the caps, radians.
    purity : float or None
        Share of a group that is expected to have its query's label; None where it was not measured.
    picks : tuple of int
        Places of the queries among the candidates, the most useful first.
    gains : tuple of int
        Unmatched rows that each query covers and those before it do not.
    """

    unmatched: int
    candidates: int
    queries: int
    covered: int
    next_gain: int
    bound: int
    radius: float
    purity: float | None
    picks: tuple[int, ...]
    gains: tuple[int, ...]

    def __str__(self) -> str:
        if not self.unmatched:
            return "Every input is matched; there is nothing to ask."
        share, most = 100 * self.covered / self.unmatched, 100 * self.bound / self.unmatched
        said = (
            f"These {self.queries:,} labels cover {share:.1f} % of the unmatched; no {self.queries:,} of the "
            f"{self.candidates:,} candidates could cover more than {most:.1f} %. The next would cover "
            f"{self.next_gain:,} more."
        )
        if self.purity is None or not self.queries:
            return said
        return f"{said} On remembered examples such groups have the label of their middle to {100 * self.purity:.1f} %."

    def document(self) -> dict[str, Any]:
        """As JSON values, without the picks."""
        return {name: value for name, value in asdict(self).items() if name not in ("picks", "gains")}


def candidates_file(root: Path) -> Path:
    """Where the candidates lie."""
    return root / ASIDE / "candidates.parquet"


def candidates_in(root: Path) -> Candidates:
    """The candidates of a proposal, as they were chosen."""
    table = read_answers(candidates_file(root), ["file", "row", "feature"])
    radius = told_by(candidates_file(root))["radius"]
    return Candidates(table["file"].to_numpy(), table["row"].to_numpy(), vectors(table["feature"]), radius)


def vectors(column: Any) -> npt.NDArray[np.float32]:
    """A column of vectors of one length as a matrix of shape (row, number)."""
    flat = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return np.array(flat.reshape(len(column), len(flat) // max(1, len(column))), np.float32)


def picks_file(root: Path) -> Path:
    """Where the picks lie."""
    return root / ASIDE / "picks.json"


def write_picks(root: Path, found: Proposed) -> None:
    """Write down what was found."""
    write_text(picks_file(root), json.dumps(asdict(found), indent=1) + "\n")


def picks_in(root: Path) -> Proposed:
    """What was found."""
    found = json.loads(picks_file(root).read_text(encoding="utf-8"))
    return Proposed(**{**found, "picks": tuple(found["picks"]), "gains": tuple(found["gains"])})
