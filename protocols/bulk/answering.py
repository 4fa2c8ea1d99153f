"""The answers of one shard: a pure function of model, options and rows."""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
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
    pa, options = arrow(), run.options
    rows = read_rows(shard, Columns(text=options.text_column), options.id_column)
    if shard.rows is not None and len(rows.x) != shard.rows:
        raise DataError(f"`{shard.file}` must have {shard.rows} rows from row {shard.first}, got {len(rows.x)}.")
    columns, counts = (_predicted if options.question == "predict" else _judged)(model, rows, options.false_alarm_rate)
    named = {"row": pa.array(np.arange(shard.first, shard.first + len(rows.x)))}
    if rows.ids is not None:
        named["id"] = pa.array(rows.ids, pa.string())
    table = pa.table({**named, **columns})
    told = {
        "schema": SCHEMA, "question": options.question, "model": run.model.digest, "generation": model.generation,
        "file": shard.file, "first": shard.first, "rows": len(rows.x), "inputs": digest(rows.x), "counts": counts,
    }  # fmt: skip
    written = io.BytesIO()
    pa.parquet.write_table(table.replace_schema_metadata({"slots": json.dumps(told)}), written, compression="zstd")
    return written.getvalue()


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
    names, owners = _names(model, pa), model.head.labels.cpu().numpy()
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
        "nearest_label": _names(model, pa).take(pa.array(model.head.labels.cpu().numpy()[found.nearest])),
        "reason": pa.array(found.reasons.tolist(), pa.string()),
    }
    novel = int(found.novel.sum())
    return columns, {"novel": novel, "familiar": len(found) - novel}


def _names(model: SlotModel, pa: Any) -> Any:
    return pa.array([model.class_name(label) for label in range(model.n_labels)], pa.string())
