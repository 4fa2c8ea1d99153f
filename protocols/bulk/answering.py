"""The answers of one shard: a pure function of model, options and rows."""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from protocols.bulk.run import SCHEMA, Run
from protocols.bulk.shards import Rows, Shard, read_rows
from protocols.data.parquet import arrow
from protocols.data.tables import Columns
from slots.errors import DataError
from slots.head.prediction import Answer
from slots.model.slot_model import SlotModel

_BLOCK = 1 << 14  # rows digested at once


def answer_shard(model: SlotModel, run: Run, shard: Shard) -> bytes:
    """Read a shard, answer it, and give the Parquet file of its answers.

    Parameters
    ----------
    model : SlotModel
        The run's.
    run : Run
        What is asked.
    shard : Shard
        One of the run's.

    Returns
    -------
    bytes
        The same whoever answers. One row an input, in its order; the file's metadata ``slots`` says in JSON what of
        which rows it answers: model, generation, file, first row, digest of the rows, counts.

    Raises
    ------
    DataError
        If the rows are none that the model takes.
    """
    pa, rows = arrow(), rows_of(run, shard)
    answer = _predicted if run.options.question == "predict" else _judged
    columns, counts = answer(model, rows, run.options.false_alarm_rate)
    named = {"row": pa.array(np.arange(shard.first, shard.first + len(rows.x)))}
    if rows.ids is not None:
        named["id"] = pa.array(rows.ids, pa.string())
    told = {"rows": len(rows.x), "inputs": digest(rows.x), "counts": counts}
    return as_parquet(pa.table({**named, **columns}), model, run, shard, told)


def rows_of(run: Run, shard: Shard) -> Rows:
    """Read a shard as the options of a run say.

    Raises
    ------
    DataError
        If the file is not what it was when the run was begun.
    """
    rows = read_rows(shard, Columns(text=run.options.text_column), run.options.id_column)
    if shard.rows is not None and len(rows.x) != shard.rows:
        raise DataError(f"`{shard.file}` must have {shard.rows} rows from row {shard.first}, got {len(rows.x)}.")
    return rows


def as_parquet(table: Any, model: SlotModel, run: Run, shard: Shard, told: dict[str, Any]) -> bytes:
    """A table as a Parquet file whose metadata say who made it, of what, and what else there is to tell."""
    who = {
        "schema": SCHEMA, "question": run.options.question, "model": run.model.digest, "generation": model.generation,
        "file": shard.file, "first": shard.first, **told,
    }  # fmt: skip
    written = io.BytesIO()
    named = table.replace_schema_metadata({"slots": json.dumps(who)})
    arrow().parquet.write_table(named, written, compression="zstd")
    return written.getvalue()


def told_by(path: Path) -> dict[str, Any]:
    """What a file of answers says of itself; its last kilobytes are read."""
    told: dict[str, Any] = json.loads(arrow().parquet.read_metadata(path).metadata[b"slots"])
    return told


def read_answers(path: Path, columns: list[str] | None = None) -> Any:
    """Columns of a file of answers, as an Arrow table; nothing is read out of the names of its folders."""
    with arrow().parquet.ParquetFile(path) as file:
        return file.read(columns=columns)


def digest(x: npt.NDArray[Any]) -> str:
    """SHA-256 of inputs: their type and shape, and all their content."""
    made = hashlib.sha256(f"{x.dtype.str} {x.shape}".encode())
    for start in range(0, len(x), _BLOCK):
        block = x[start : start + _BLOCK]
        if block.dtype == object:
            for text in block:
                word = str(text).encode("utf-8", "surrogatepass")
                made.update(len(word).to_bytes(8, "little") + word)
        else:
            made.update(np.ascontiguousarray(block).data)
    return made.hexdigest()


def _predicted(model: SlotModel, rows: Rows, _rate: float) -> tuple[dict[str, Any], dict[str, int]]:
    pa, found = arrow(), model.predict(rows.x)
    kinds = pa.array([it.name.lower() for it in Answer])
    rivals = found.runner_up_slots >= 0
    rival = np.where(rivals, found.runner_up_slots, 0)
    names, owners = names_of(model), model.head.labels.cpu().numpy()
    columns = {
        "label": names.take(pa.array(found.labels)),
        "label_id": pa.array(found.labels.astype(np.int32)),
        "answer": kinds.take(pa.array(found.answers.astype(np.int64))),
        "slot": pa.array(found.slots.astype(np.int32)),
        "margin": pa.array(found.margins.astype(np.float32)),
        "runner_up": names.take(pa.array(owners[rival], mask=~rivals)),
        "runner_up_slot": pa.array(rival.astype(np.int32), mask=~rivals),
        "runner_up_margin": pa.array(found.runner_up_margins.astype(np.float32), mask=~rivals),
    }
    counts = Counter(found.answers.tolist())
    return columns, {it.name.lower(): counts.get(it.value, 0) for it in Answer}


def _judged(model: SlotModel, rows: Rows, rate: float) -> tuple[dict[str, Any], dict[str, int]]:
    pa, found = arrow(), model.assess_novelty(rows.x, false_alarm_rate=rate)
    columns = {
        "score": pa.array(found.scores),
        "p_value": pa.array(found.p_values),
        "novel": pa.array(found.novel),
        "nearest_slot": pa.array(found.nearest.astype(np.int32)),
        "nearest_label": names_of(model).take(pa.array(model.head.labels.cpu().numpy()[found.nearest])),
        "reason": pa.array(found.reasons.tolist(), pa.string()),
    }
    novel = int(found.novel.sum())
    return columns, {"novel": novel, "familiar": len(found) - novel}


def names_of(model: SlotModel) -> Any:
    """Names of all labels, as an Arrow array."""
    pa = arrow()
    return pa.array([model.class_name(label) for label in range(model.n_labels)], pa.string())
