"""Answers shard by shard: those of one process over all rows, whoever makes them and however often they are killed."""

import json
import os
import random
import signal
import sys
import time
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import nursery
from support.command import told
from support.processes import workers_of
from support.small_models import mixture, new_animals, three_animals

from protocols.bulk import shards as listing
from protocols.bulk import work as working
from protocols.bulk.answering import digest
from protocols.bulk.engines import run_here, run_processes, run_ray
from protocols.bulk.outcome import outcome
from protocols.bulk.run import Options, answers_of, begin, read_run
from protocols.bulk.shards import find_shards, read_rows
from protocols.bulk.work import failures, forgive, never, pending, work
from protocols.data.tables import Columns
from slots.head import Answer
from slots.model.slot_model import SlotModel
from slots.progress import silent
from slots.storage.atomic import temporary
from slots.training import TrainConfig, fit

pytestmark = pytest.mark.slow

pa = pytest.importorskip("pyarrow", reason="pip install 'neural-slots[parquet]'")
parquet = pytest.importorskip("pyarrow.parquet")


def rows(n, seed=0):
    """Rows near the six slots, and near nothing."""
    rng = np.random.default_rng(seed)
    x = np.eye(8)[rng.integers(0, 8, n)] + rng.normal(0, 0.1, (n, 8))
    return x.astype(np.float32)


@pytest.fixture
def model(tmp_path):
    made = three_animals()
    made.save(tmp_path / "m")
    return tmp_path / "m"


def written(out):
    """All answers, in the order of their files."""
    return pa.concat_tables([parquet.read_table(path) for path in sorted(out.glob("*.parquet"))])


def contents(out):
    return {path.name: path.read_bytes() for path in out.glob("*.parquet")}


def as_file(path, x, ids):
    """The same rows in a file of some kind."""
    if path.suffix == ".npy":
        np.save(path, x)
    elif path.suffix == ".npz":
        np.savez(path, x=x)
    elif path.suffix == ".parquet":
        parquet.write_table(pa.table({"v": pa.array(list(x)), "key": ids}), path, row_group_size=7)
    else:
        lines = (json.dumps({"v": row.tolist(), "key": key}) for row, key in zip(x, ids, strict=True))
        path.write_text("\n".join(lines))


@pytest.mark.parametrize("ending", [".npy", ".npz", ".parquet", ".jsonl"])
def test_each_kind_of_file_gets_the_answers_of_the_whole(model, tmp_path, capsys, ending):
    x = rows(60)
    ids = [f"row {i}" for i in range(60)]
    (tmp_path / "data").mkdir()
    as_file(tmp_path / "data" / f"a{ending}", x[:40], ids[:40])
    as_file(tmp_path / "data" / f"b{ending}", x[40:], ids[40:])
    tables = ending in (".parquet", ".jsonl")
    named = ("--id-column", "key") if tables else ()
    pattern = tmp_path / "data" / f"*{ending}"
    told(capsys, "predict", model, "--shards", pattern, "--rows", 16, "--out", tmp_path / "out", *named)
    found, expected = written(tmp_path / "out"), SlotModel.load(model).predict(x)
    assert found["label_id"].to_pylist() == expected.labels.tolist()
    assert found["label"].to_pylist() == [("cat", "dog", "bird")[label] for label in expected.labels]
    assert found["answer"].to_pylist() == [Answer(it).name.lower() for it in expected.answers]
    assert found["slot"].to_pylist() == expected.slots.tolist()
    assert np.array_equal(found["margin"].to_numpy(), expected.margins.astype(np.float32))
    rivals = expected.runner_up_slots.tolist()
    assert found["runner_up_slot"].to_pylist() == [it if it >= 0 else None for it in rivals]
    assert found["row"].to_pylist() == [*range(40), *range(20)]
    assert not tables or found["id"].to_pylist() == ids
    assert len(list((tmp_path / "out").glob("*.parquet"))) == {".npy": 5, ".parquet": 5}.get(ending, 2)
    assert {it.name for it in (tmp_path / "out").iterdir() if it.suffix != ".parquet"} == {".run"}


def test_novelty_shard_by_shard(tmp_path, capsys):
    x, y = mixture(3, 200)
    made, _ = fit(x, y, config=TrainConfig(epochs=2, slots_per_class=1, held_out=0.2))
    made.save(tmp_path / "m")
    np.save(tmp_path / "new.npy", x[:90] + np.float32(0.3))
    out = tmp_path / "out"
    printed = told(
        capsys, "ood", tmp_path / "m", "--shards", tmp_path / "new.npy", "--rows", 40, "--out", out,
        "--false-alarm-rate", 0.2, "--json",
    )  # fmt: skip
    found, expected = written(out), made.assess_novelty(x[:90] + np.float32(0.3), false_alarm_rate=0.2)
    assert np.allclose(found["score"].to_numpy(), expected.scores, rtol=1e-9)
    assert np.array_equal(found["novel"].to_numpy(), expected.novel)
    assert np.array_equal(found["nearest_slot"].to_numpy(), expected.nearest)
    document = json.loads(printed.out)
    assert document["counts"] == {"novel": int(expected.novel.sum()), "familiar": 90 - int(expected.novel.sum())}
    assert (document["rows"], document["shards"], document["of"], document["generation"]) == (90, 3, 3, 0)


def test_a_model_that_cannot_judge_novelty_is_refused_before_anything_is_written(model, tmp_path, capsys):
    np.save(tmp_path / "x.npy", rows(60))
    printed = told(
        capsys, "ood", model, "--shards", tmp_path / "x.npy", "--rows", 8, "--out", tmp_path / "out", status=2
    )
    assert "The model must have held-out scores to judge novelty by, and has none. Fit it again with" in printed.err
    assert printed.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("rate", "message"), [(0.001, "must be at least 0.0"), (1.5, "must lie in (0, 1), got 1.5")])
def test_a_rate_that_the_model_cannot_hold_is_refused_before_anything_is_written(tmp_path, capsys, rate, message):
    x, y = mixture(3, 200)
    made, _ = fit(x, y, config=TrainConfig(epochs=1, slots_per_class=1, held_out=0.2))
    made.save(tmp_path / "m")
    np.save(tmp_path / "x.npy", x[:60])
    call = "--shards", tmp_path / "x.npy", "--rows", 8, "--out", tmp_path / "out", "--false-alarm-rate", rate
    printed = told(capsys, "ood", tmp_path / "m", *call, status=2)
    assert f"`false_alarm_rate` {message}" in printed.err
    assert printed.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def begun(tmp_path, model, n=60, size=8, **options):
    np.save(tmp_path / "x.npy", rows(n))
    run = begin(
        tmp_path / "out", model, Options("predict", size, **options), find_shards(str(tmp_path / "x.npy"), rows=size)
    )
    return tmp_path / "out", run


def test_a_run_goes_on_with_what_is_left_and_with_new_files(model, tmp_path, capsys):
    out, run = begun(tmp_path, model)
    asked = iter([False, False, True])
    work(out, stop=lambda: next(asked))
    before = contents(out)
    assert len(before) == 2
    command = ("predict", model, "--shards", tmp_path / "*.npy", "--rows", 8, "--out", out)
    np.save(tmp_path / "y.npy", rows(10, 1))
    stamps = {path: path.stat().st_mtime_ns for path in out.glob("*.parquet")}
    assert "70 rows in 10 of 10 shards" in told(capsys, *command).out
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    assert {name: contents(out)[name] for name in before} == before
    stamps = {path: path.stat().st_mtime_ns for path in out.glob("*.parquet")}
    told(capsys, *command)
    assert {path: path.stat().st_mtime_ns for path in out.glob("*.parquet")} == stamps
    (out / "x-3.parquet").unlink()
    told(capsys, *command)
    assert len(contents(out)) == 10
    assert len(run.shards) == 8


def test_names_of_answers_stay_when_files_come_in_other_folders(model, tmp_path, capsys):
    command = ("predict", model, "--shards", tmp_path / "data" / "**" / "*.npy", "--out", tmp_path / "out")
    for n, folder in enumerate(("2024", "2025"), start=1):
        (tmp_path / "data" / folder).mkdir(parents=True)
        np.save(tmp_path / "data" / folder / "x.npy", rows(10))
        assert f"{10 * n} rows in {n} of {n} shards" in told(capsys, *command).out
    assert sorted(contents(tmp_path / "out")) == ["2024__x.parquet", "2025__x.parquet"]


def test_the_model_of_the_first_shard_answers_the_last(model, tmp_path):
    out, run = begun(tmp_path, model)
    asked = iter([False, True])
    work(out, stop=lambda: next(asked))
    learned = SlotModel.load(model)
    before = learned.predict(rows(60)).labels
    learned.update(new_animals())
    learned.save(model)
    assert (learned.predict(rows(60)).labels != before).any()
    assert begin(out, model, run.options, run.shards).model == run.model
    work(out)
    assert written(out)["label_id"].to_pylist() == before.tolist()
    assert outcome(out, run).generation == 0


def test_rows_that_cannot_be_answered_fail_their_shard_alone(model, tmp_path, capsys):
    x = rows(60)
    x[19, 3] = np.nan
    np.save(tmp_path / "x.npy", x)
    command = ("predict", model, "--shards", tmp_path / "x.npy", "--rows", 8, "--out", tmp_path / "out")
    printed = told(capsys, *command, status=2)
    assert "1 of 8 shards could not be answered, 'x-2' first: `x` must be finite, got NaN" in printed.err
    assert printed.err.count("\n") == 1
    assert len(contents(tmp_path / "out")) == 7
    np.save(tmp_path / "x.npy", rows(60))
    told(capsys, *command)
    assert len(contents(tmp_path / "out")) == 8


def test_a_shard_that_kills_its_workers_is_left_alone_in_the_end(model, tmp_path, monkeypatch):
    out, run = begun(tmp_path, model)
    begins = []

    def dying(*_):
        begins.append(1)
        raise KeyboardInterrupt  # ends the worker as a signal does, without a word

    monkeypatch.setattr(working, "TRIES", 3)
    monkeypatch.setattr(working, "answer_shard", dying)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            work(out)
    monkeypatch.undo()
    monkeypatch.setattr(working, "TRIES", 3)
    work(out)
    assert len(begins) == 3
    assert list(failures(out, run)) == ["x-0"]
    assert "begun 3 times and never ended" in failures(out, run)["x-0"]
    forgive(out, run)
    work(out)
    assert failures(out, run) == {}
    assert len(contents(out)) == 8


@pytest.mark.parametrize("run_again", [False, True])
def test_what_a_dead_worker_had_written_is_removed_whoever_begins_next(model, tmp_path, monkeypatch, run_again):
    """Also where the command is run again in between, which forgets how often a shard was begun."""
    out, run = begun(tmp_path, model)
    left = temporary(answers_of(out, run, run.shards[0]))

    def dying(*_):
        left.write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(working, "write_file", dying)
        with pytest.raises(KeyboardInterrupt):
            work(out)
    assert left.exists()
    if run_again:
        forgive(out, run)
    work(out)
    assert not left.exists()
    assert len(contents(out)) == 8


REFUSED = [
    ({"--rows": 9}, "`out` holds answers with rows 8, asked for was 9"),
    ({"--id-column": "k"}, "`out` holds answers with id_column None, asked for was 'k'"),
    ({"--shards": "none*.npy"}, "`shards` must name at least one file, got "),
    ({"--shards": "x.txt"}, "`shards` must be files of the kinds .npy, .npz, .csv"),
    ({"--engine": "spark"}, "--engine must be processes or ray, got 'spark'"),
    ({"--out": None}, "--shards writes a file a shard and needs --out FOLDER, got none"),
    ({"--out": "full"}, "`out` must be a new folder, got "),
    ({"model": "other"}, "`out` holds answers with model "),
    ({"--data": "digits"}, "or --data, or --shards: one of them"),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED, ids=[next(iter(it)) for it, _ in REFUSED])
def test_what_does_not_fit_is_refused_in_one_line(model, tmp_path, capsys, changes, message):
    status = 3 if "file" in message.split(", got")[0] and "FOLDER" not in message else 2
    begun(tmp_path, model)
    three_animals().save(tmp_path / "other")
    (tmp_path / "x.txt").write_text("nothing")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    options = {"model": "m", "--shards": "x.npy", "--rows": 8, "--out": "out", **changes}
    where = {key: tmp_path / options[key] for key in ("model", "--shards", "--out") if options[key] is not None}
    words = [
        str(it)
        for key, value in {**options, **where}.items()
        if value is not None and key != "model"
        for it in (key, value)
    ]
    printed = told(capsys, "predict", where["model"], *words, status=status)
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert contents(tmp_path / "out") == {}


def test_a_file_that_changed_is_not_taken_for_what_it_was(model, tmp_path, capsys):
    out, run = begun(tmp_path, model)
    np.save(tmp_path / "x.npy", rows(61))
    printed = told(capsys, "predict", model, "--shards", tmp_path / "x.npy", "--rows", 8, "--out", out, status=2)
    assert "must be files as they were when" in printed.err
    work(out)  # a worker elsewhere that had begun before
    assert "must stay as it was when the run was begun" in failures(out, run)["x-0"]
    assert contents(out) == {}


def test_two_files_of_one_name_are_refused(model, tmp_path, capsys):
    for name in ("x.npy", "x.npz"):
        as_file(tmp_path / name, rows(3), [])
    printed = told(capsys, "predict", model, "--shards", tmp_path / "x.np?", "--out", tmp_path / "out", status=3)
    assert "must be files of different names, got several 'x'" in printed.err


@given(st.lists(st.integers(0, 30), max_size=12), st.integers(1, 40))
def test_row_groups_are_cut_without_loss(counts, most):
    pieces = listing._groups(counts, most)
    assert [start for start, _, _ in pieces] == [sum(it for _, it, _ in pieces[:i]) for i in range(len(pieces))]
    assert sum(n for _, n, _ in pieces) == sum(counts)
    for _, n, (first, end) in pieces:
        assert n == sum(counts[first:end]) > 0
        assert n <= most or sum(1 for it in counts[first:end] if it) == 1
    assert all(before[2][1] == after[2][0] for before, after in pairwise(pieces))


def test_names_of_rows_are_text_in_every_shard(model, tmp_path):
    """Numbers in one file, words and holes in another: readers of the folder see one schema."""
    for name, keys in (("a", [1, 2]), ("b", ["x", None]), ("c", [None, None]), ("d", ["\ud800", 2.5])):
        as_file(tmp_path / f"{name}.jsonl", rows(2), keys)
    found = find_shards(str(tmp_path / "*.jsonl"), rows=8)
    begin(tmp_path / "out", model, Options("predict", 8, id_column="key"), found)
    work(tmp_path / "out")
    assert written(tmp_path / "out")["id"].to_pylist() == ["1", "2", "x", None, None, None, "\\ud800", "2.5"]


def test_a_shard_too_large_for_the_memory_fails_alone(model, tmp_path, monkeypatch):
    out, run = begun(tmp_path, model)
    real = working.answer_shard

    def small(model, run, shard):
        if shard.first == 16:
            raise MemoryError("Unable to allocate 9 TiB")
        return real(model, run, shard)

    monkeypatch.setattr(working, "answer_shard", small)
    work(out)
    assert failures(out, run) == {
        "x-2": "it takes more memory than there is: Unable to allocate 9 TiB. Take smaller --rows and another --out."
    }
    assert len(contents(out)) == 7


def test_what_was_answered_is_told_by_the_file_itself(model, tmp_path):
    out, run = begun(tmp_path, model)
    work(out)
    said = json.loads(parquet.read_metadata(out / "x-1.parquet").metadata[b"slots"])
    shard = run.shards[1]
    assert said["inputs"] == digest(rows(60)[8:16]) == digest(read_rows(shard, Columns(), None).x)
    assert said["inputs"] != digest(rows(60)[8:16].astype(np.float64))
    assert (said["model"], said["generation"], said["first"], said["rows"]) == (run.model.digest, 0, 8, 8)
    assert sum(said["counts"].values()) == 8


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc for the workers")
def test_killed_workers_lose_and_double_nothing(model, tmp_path):
    """The command's own workers, killed at random moments, and another worker beside them."""
    out, run = begun(tmp_path, model, n=2400, size=20)
    work(out)
    expected = contents(out)
    other = tmp_path / "killed"
    begin(other, model, run.options, run.shards)
    process = nursery.begin(
        ["predict", model, "--shards", tmp_path / "x.npy", "--rows", "20", "--out", other, "--workers", "2"]
    )
    rng, killed = random.Random(0), 0
    while process.poll() is None and killed < 8:
        time.sleep(rng.uniform(0, 0.3))
        workers = workers_of(process.pid)
        if len(workers) > 1 and contents(other):
            os.kill(rng.choice(workers), signal.SIGKILL)
            killed += 1
    work(other)
    said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert killed >= 3
    assert contents(other) == expected
    assert not list(other.glob(".*.tmp"))
    assert written(other).num_rows == 2400


def test_workers_in_processes_and_here_write_the_same(model, tmp_path):
    out, run = begun(tmp_path, model)
    shares = []
    run_processes(out, run, 2, device="cpu", stop=never, progress=lambda _, share: shares.append(share))
    other = tmp_path / "other"
    begin(other, model, run.options, run.shards)
    run_here(other, read_run(other), device="cpu", stop=never, progress=silent)
    assert contents(out) == contents(other)
    assert shares[-1] == 1.0
    assert pending(out, run) == []


def test_without_ray_its_engine_is_refused_before_anything_is_written(model, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    np.save(tmp_path / "x.npy", rows(9))
    command = "predict", model, "--shards", tmp_path / "x.npy", "--engine", "ray", "--out", tmp_path / "out"
    assert "`--engine ray` needs Ray, which is missing. Install it" in told(capsys, *command, status=2).err
    assert not (tmp_path / "out").exists()


def test_actors_of_ray_write_the_same(model, tmp_path, monkeypatch):
    """On a cluster of this machine alone, where Ray is installed."""
    pytest.importorskip("ray", reason="pip install 'neural-slots[ray]'")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(it for it in sys.path if it))  # for Ray's own processes
    out, run = begun(tmp_path, model)
    run_ray(out, run, 2, device="cpu", stop=never, progress=silent)
    other = tmp_path / "other"
    begin(other, model, run.options, run.shards)
    run_here(other, read_run(other), device="cpu", stop=never, progress=silent)
    assert contents(out) == contents(other)
