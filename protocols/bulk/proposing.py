"""Which few of very many rows to label first: three passes over the shards, with a choice before the last two.

First each shard says which of its rows are unmatched. The unmatched rows of the smallest hashes are the candidates.
Then each shard says which candidates cover its rows, greedy coverage picks the queries from all shards' bits, and each
shard says whose group its rows are in. Whoever gets to a choice first makes it, and writes it whole; it is a function
of what the passes wrote, so that nothing depends on who worked, nor on how files are cut.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock

from protocols.bulk.answering import read_answers, told_by
from protocols.bulk.outcome import Outcome, outcome
from protocols.bulk.proposal import Proposed, candidates_file, picks_file, picks_in, vectors, write_picks
from protocols.bulk.run import (
    ASIDE,
    Question,
    Run,
    begin_step,
    model_folder,
    step_answers,
)
from protocols.bulk.work import failures, pending_or_failed
from protocols.data.parquet import arrow
from protocols.pages.environment import csv_text
from protocols.recipes.building import load_model
from slots.cover.sharded import coverage_of, greedy_over_shards
from slots.storage.atomic import write_file, write_text
from slots.update.queries import SAMPLED, USUAL_RADIUS, least_gain, median_radius, pure_radius

QUERIES = "queries.csv"
"""Name of the list of rows to label."""

_ORDER = [("file", "ascending"), ("row", "ascending")]


def propose_over_shards(root: Path, run: Run, work_on: Callable[[Path, Run], None]) -> Outcome:
    """Take a proposal to its end, or as far as it can go.

    Parameters
    ----------
    root : Path
        Folder of the run.
    run : Run
        As `begin` gave it.
    work_on : callable
        ``work_on(folder, step)`` does what is left of one pass over the shards.

    Returns
    -------
    Outcome
        Shards of the last pass. A pass that could not be finished ends all: the choice is over all rows.
    """
    if not run.shards:
        return outcome(root, run)
    steps: tuple[tuple[Question, Callable[[Path, Run], None]], ...] = (
        ("unmatched", lambda _root, _run: None), ("covered", choose_candidates), ("groups", pick_queries),
    )  # fmt: skip
    for question, choose in steps:
        with FileLock(root / ASIDE / "lock", fallback_to_soft=False):
            choose(root, run)
        folder, step = begin_step(root, run, question)
        work_on(folder, step)
        if pending_or_failed(folder, step) and question != "groups":
            return Outcome(0, len(run.shards), 0, {}, failures(folder, step), None)
    found = outcome(folder, step)
    if found.shards == found.of:
        write_text(root / QUERIES, queries_csv(root, run))
    return replace(found, proposal=picks_in(root))


def choose_candidates(root: Path, run: Run) -> None:
    """Find the candidates and the radius of their caps, once the first pass is done.

    Notes
    -----
    Candidates are the unmatched rows of the smallest hashes, an even sample that is the same however files are cut; as
    many of them as `slots.update.propose` looks at, again those of the smallest hashes, set the radius by its rule.
    """
    if candidates_file(root).exists():
        return
    pa, most, smallest = arrow(), run.options.max_candidates, np.zeros(0, np.int64)
    paths = [step_answers(root, "unmatched", shard) for shard in run.shards]
    for path in paths:
        hashes = read_answers(path, ["hash"])["hash"].drop_null().to_numpy()
        smallest = np.sort(np.concatenate([smallest, hashes]))[:most]
    parts = []
    largest = int(smallest[-1]) if len(smallest) else -1
    for shard, path in zip(run.shards, paths, strict=True):
        table = read_answers(path).filter(pa.compute.field("hash") <= largest)
        place = pa.array(np.full(len(table), run.files[shard.file], np.int32))
        parts.append(table.append_column("file", place))
    table = pa.concat_tables(parts).sort_by([("hash", "ascending"), *_ORDER]).slice(0, most)
    table = table.append_column("rank", pa.array(np.arange(len(table))))
    table = table.sort_by(_ORDER)
    radius, purity = _radius(root, run, table)
    features = vectors(table["feature"])
    kept = [name for name in table.column_names if name not in ("hash", "views", "rank")]
    table = table.filter(pa.array((features != 0).any(1))).select(kept)  # only what has a direction
    told = {"radius": radius, "purity": purity, "unmatched": sum(told_by(it)["unmatched"] for it in paths)}
    sink = pa.BufferOutputStream()
    pa.parquet.write_table(table.replace_schema_metadata({"slots": json.dumps(told)}), sink)
    write_file(candidates_file(root), sink.getvalue().to_pybytes())


def _radius(root: Path, run: Run, table: Any) -> tuple[float, float | None]:
    """Radius of the caps, and the purity that was measured for it."""
    if run.options.radius is not None:
        return run.options.radius, None
    model = load_model(model_folder(root), device="cpu")
    most = median_radius(model.head, fallback=USUAL_RADIUS)
    if model.rehearsal is None or not len(table):
        return most, None
    sample = table.filter(arrow().compute.field("rank") < SAMPLED)
    first, rest = (vectors(sample[name]) for name in ("feature", "views"))
    views = np.concatenate([first, rest], 1).reshape(len(sample), model.views.n_views, -1)
    found = pure_radius(model.rehearsal, torch.from_numpy(views), purity=run.options.purity, most=most)
    return found.radius, found.purity


class StoredRows:
    """Packed rows in a file; each look opens it anew, since there are more files than a process may hold open."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.shape: tuple[int, ...] = np.load(path, mmap_mode="r").shape

    def __getitem__(self, rows: Any) -> Any:
        """Rows in memory."""
        return np.array(np.load(self._path, mmap_mode="r")[rows])


def pick_queries(root: Path, run: Run) -> None:
    """Pick the queries, once the second pass is done."""
    if picks_file(root).exists():
        return
    told, options = told_by(candidates_file(root)), run.options
    shards = [StoredRows(step_answers(root, "covered", shard)) for shard in run.shards]
    least = least_gain(options.budget, options.stop_below, told["unmatched"])
    picks = greedy_over_shards(shards, min_gain=least, max_slots=options.budget)
    found = coverage_of(shards, picks, told["unmatched"])
    n_candidates = shards[0].shape[0] if shards else 0
    write_picks(
        root,
        Proposed(
            unmatched=told["unmatched"],
            candidates=n_candidates,
            queries=len(picks),
            covered=int(found.gains.sum()),
            next_gain=found.next_gain,
            bound=found.bound,
            radius=told["radius"],
            purity=told["purity"],
            picks=tuple(picks.tolist()),
            gains=tuple(found.gains.tolist()),
        ),
    )


def queries_csv(root: Path, run: Run) -> str:
    """The rows to label as CSV, the most useful first.

    Parameters
    ----------
    root : Path
        Folder of a run whose queries are picked.
    run : Run
        The same.

    Returns
    -------
    str
        Columns ``query`` (its number, which its group has in ``groups``), ``file`` (within the folder that holds all),
        ``row``, ``id`` where a column names the rows, ``gain``, ``nearest_label`` and ``nearest_slot`` as known now,
        and ``text`` for rows of text.
    """
    found, table, model = picks_in(root), read_answers(candidates_file(root)), load_model(model_folder(root))
    more = [name for name in ("id", "text") if name in table.column_names]
    asked = table.select(["file", "row", "label_id", "slot", *more]).take(
        list(found.picks) or arrow().array([], "int64")
    )
    names, lines = [run.name_of(file) for file in run.files], []
    for number, (it, gain) in enumerate(zip(asked.to_pylist(), found.gains, strict=True)):
        label = model.class_name(it["label_id"])
        lines.append((number, names[it["file"]], it["row"], gain, label, it["slot"], *(it[name] for name in more)))
    return csv_text(("query", "file", "row", "gain", "nearest_label", "nearest_slot", *more), lines)
