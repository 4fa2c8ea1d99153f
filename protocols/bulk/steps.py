"""The three passes of a proposal over a shard: what is unmatched, which candidates cover it, whose group it is in.

Each is a function of model, options and rows, and of what the passes before it wrote.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from protocols.bulk.answering import as_parquet, digest, names_of, read_answers, rows_of, told_by
from protocols.bulk.proposal import candidates_in, picks_in
from protocols.bulk.run import Run, step_answers
from protocols.bulk.shards import Shard
from protocols.data.parquet import arrow
from slots.cover.sharded import first_covers
from slots.features.source import FeatureSource
from slots.head.similarities import normalize
from slots.model.slot_model import SlotModel
from slots.update.queries import SAMPLED, cap_words


def take_step(root: Path, model: SlotModel, run: Run, shard: Shard) -> bytes:
    """Do one step of a proposal for a shard.

    Parameters
    ----------
    root : Path
        Folder of the proposal.
    model : SlotModel
        The run's.
    run : Run
        The step, as `begin_step` gives it.
    shard : Shard
        One of the run's.

    Returns
    -------
    bytes
        The file to write; the same whoever does it.

    Raises
    ------
    DataError
        If the rows are none that the model takes.
    """
    if run.options.question == "unmatched":
        return _unmatched(model, run, shard)
    if run.options.question == "covered":
        return _covered(root, model, run, shard)
    return _grouped(root, model, run, shard)


def row_hashes(name: str, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Numbers that look drawn evenly, of a file's name and the numbers of its rows alone.

    Parameters
    ----------
    name : str
        Of the file.
    rows : int64 array of shape (row,)
        Their numbers in it.

    Returns
    -------
    int64 array of shape (row,)
        At least 0.

    Notes
    -----
    SplitMix64 (Steele, Lea and Flood 2014), started at a digest of the name; its upper 63 bits.
    """
    start = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    z = np.frombuffer(start, "<u8") + (rows.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: npt.NDArray[np.uint64] = (z ^ (z >> np.uint64(31))) >> np.uint64(1)
    return mixed.astype(np.int64)


def _unmatched(model: SlotModel, run: Run, shard: Shard) -> bytes:
    """All unmatched rows; those of the smallest hashes with what makes candidates of them."""
    pa, rows = arrow(), rows_of(run, shard)
    found = model.predict(rows.x)
    places = np.flatnonzero(~found.matched)
    hashes = row_hashes(run.name_of(shard.file), shard.first + places)
    chosen = np.argsort(hashes, kind="stable")[: run.options.max_candidates]
    views = _features(model, rows.x[places[chosen]])
    rest = np.ones(len(places), bool)
    rest[chosen] = False
    columns = {
        "row": pa.array(shard.first + places),
        "label_id": pa.array(found.labels[places].astype(np.int32)),
        "slot": pa.array(found.slots[places].astype(np.int32)),
        "hash": pa.array(hashes, mask=rest),
        "feature": _lists(pa, len(places), chosen, views[:, 0]),
        "views": _lists(pa, len(places), chosen[:SAMPLED], [it.ravel() for it in views[:SAMPLED, 1:]]),
    }
    if rows.ids is not None:
        columns["id"] = pa.array([rows.ids[place] for place in places], pa.string())
    if rows.x.ndim == 1:
        texts = np.full(len(places), None, object)
        texts[chosen] = [str(it).encode("utf-8", "backslashreplace").decode() for it in rows.x[places[chosen]]]
        columns["text"] = pa.array(texts, pa.string())
    told = {"rows": len(rows.x), "inputs": digest(rows.x), "unmatched": len(places)}
    return as_parquet(pa.table(columns), model, run, shard, told)


def _features(model: SlotModel, x: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """View features of checked inputs, of shape (example, view, feature)."""
    source = FeatureSource(model.featurizer, x, keep=False)
    parts = [source(rows).float().cpu().numpy() for rows in source.blocks()]
    return np.concatenate([np.zeros((0, model.views.n_views, model.featurizer.feature_dim), np.float32), *parts])


def _lists(pa: Any, n: int, places: npt.NDArray[np.int64], vectors: Iterable[npt.NDArray[np.float32]]) -> Any:
    """A column of vectors at some places of ``n``, null elsewhere."""
    cells: list[Any] = [None] * n
    for place, vector in zip(places.tolist(), vectors, strict=True):
        cells[place] = vector
    return pa.array(cells, pa.list_(pa.float32()))


@torch.no_grad()
def _covered(root: Path, model: SlotModel, run: Run, shard: Shard) -> bytes:
    """Which unmatched rows lie in the cap of each candidate: packed bits of shape (candidate, word)."""
    unmatched = read_answers(step_answers(root, "unmatched", shard), ["row"])["row"].to_numpy()
    candidates = candidates_in(root)
    here = (candidates.files == run.files[shard.file]) & np.isin(candidates.rows, unmatched)
    places = np.where(here, np.searchsorted(unmatched, candidates.rows), -1)
    x = rows_of(run, shard).x[unmatched - shard.first]
    source = FeatureSource(model.featurizer, x, keep=False)
    caps = normalize(torch.from_numpy(candidates.features)).to(source.featurizer.device)
    words = cap_words(source, caps, candidates.radius, places=places)
    written = io.BytesIO()
    np.save(written, words.numpy().view(np.uint64))
    return written.getvalue()


def _grouped(root: Path, model: SlotModel, run: Run, shard: Shard) -> bytes:
    """The unmatched rows, each with the number of the first query whose cap holds it."""
    pa, path = arrow(), step_answers(root, "unmatched", shard)
    ids = ["id"] if run.options.id_column is not None else []
    table = read_answers(path, ["row", *ids, "label_id", "slot"])
    rows = np.load(step_answers(root, "covered", shard), mmap_mode="r")[list(picks_in(root).picks)]
    query = first_covers(rows, len(table))
    columns = {
        **{name: table[name] for name in ("row", *ids)},
        "query": pa.array(query.astype(np.int32), mask=query < 0),
        "nearest_label": names_of(model).take(table["label_id"].combine_chunks()),
        "nearest_slot": table["slot"],
    }
    before = told_by(path)
    grouped = int((query >= 0).sum())
    counts = {"matched": before["rows"] - len(table), "grouped": grouped, "ungrouped": len(table) - grouped}
    told = {"rows": before["rows"], "inputs": before["inputs"], "counts": counts}
    return as_parquet(pa.table(columns), model, run, shard, told)
