"""Queries over shards: those of all rows at once, however they are cut, whoever works and whatever is killed."""

import csv
import json
import os
import random
import signal
import sys
import time

import numpy as np
import pytest
from support import nursery
from support.command import told
from support.nets import strokes
from support.processes import workers_of
from support.small_models import mixture, three_animals

from backbones import build
from protocols.bulk.engines import answer_shards
from protocols.bulk.run import Options, begin, begin_step
from protocols.bulk.shards import find_shards
from protocols.bulk.steps import row_hashes
from protocols.bulk.work import work
from slots.model.slot_model import SlotModel
from slots.training import TrainConfig, fit

pytestmark = pytest.mark.slow

pa = pytest.importorskip("pyarrow", reason="pip install 'neural-slots[parquet]'")
parquet = pytest.importorskip("pyarrow.parquet")


def rows(n, seed=0):
    """Rows near the six slots, near the two axes that none is near to, and between all."""
    rng = np.random.default_rng(seed)
    x = np.eye(8)[rng.integers(0, 8, n)] + rng.normal(0, 0.16, (n, 8))
    return x.astype(np.float32)


@pytest.fixture
def model(tmp_path):
    three_animals().save(tmp_path / "m")
    return tmp_path / "m"


def asked(out):
    with (out / "queries.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def groups(out):
    """Rows of each group, by file: what the folder says, in the order of its files."""
    found = {}
    for path in sorted((out / "groups").glob("*.parquet")):
        file = json.loads(parquet.read_metadata(path).metadata[b"slots"])["file"]
        for line in parquet.read_table(path).to_pylist():
            found.setdefault(line["query"], []).append((os.path.basename(file), line["row"]))
    return found


def contents(out):
    """All that a user sees."""
    return {it.relative_to(out): it.read_bytes() for it in [out / "queries.csv", *(out / "groups").glob("*.parquet")]}


def propose(capsys, model, pattern, out, *more, **status):
    return told(capsys, "propose", model, "--shards", pattern, "--out", out, *more, "--json", **status)


@pytest.mark.parametrize("budget", [0, 1, 7, None])
def test_queries_are_those_of_all_rows_at_once(model, tmp_path, capsys, budget):
    x = rows(900)
    np.save(tmp_path / "x.npy", x)
    more = [] if budget is None else ["--budget", budget]
    found = json.loads(propose(capsys, model, tmp_path / "x.npy", tmp_path / "out", "--rows", 200, *more).out)
    expected = SlotModel.load(model).propose(x, budget=budget)
    assert len(expected.unmatched) > 250
    names = ("next_gain", "bound", "radius", "purity", "covered")
    assert [found[name] for name in names] == [getattr(expected, name) for name in names]
    assert (found["unmatched"], found["queries"]) == (len(expected.unmatched), len(expected.queries))
    assert [int(it["row"]) for it in asked(tmp_path / "out")] == expected.queries.tolist()
    assert [int(it["gain"]) for it in asked(tmp_path / "out")] == expected.gains.tolist()
    places = groups(tmp_path / "out")
    left = {("x.npy", row) for row in expected.unmatched.tolist()}
    for number, group in enumerate(expected.groups):
        assert places[number] == [("x.npy", row) for row in sorted(group.tolist())]
        left -= set(places[number])
    assert set(places.get(None, [])) == left
    counts = {"matched": 900 - len(expected.unmatched), "grouped": expected.covered, "ungrouped": len(left)}
    assert found["counts"] == counts
    assert (found["rows"], found["shards"], found["of"], found["failed"]) == (900, 5, 5, {})


def test_the_radius_is_measured_on_what_is_remembered(tmp_path, capsys):
    x, y = mixture(3, 200)
    made, _ = fit(x, y, config=TrainConfig(epochs=2, slots_per_class=1, held_out=0.2))
    made.save(tmp_path / "m")
    new = mixture(6, 90, seed=1, spread=0.2)[0]
    np.save(tmp_path / "x.npy", new)
    found = json.loads(propose(capsys, tmp_path / "m", tmp_path / "x.npy", tmp_path / "out", "--rows", 100).out)
    expected = made.propose(new)
    assert expected.purity is not None
    assert (found["radius"], found["purity"]) == (expected.radius, expected.purity)
    assert [int(it["row"]) for it in asked(tmp_path / "out")] == expected.queries.tolist()
    said = told(
        capsys, "propose", tmp_path / "m", "--shards", tmp_path / "x.npy", "--out", tmp_path / "out", "--rows", 100
    )
    assert (
        f"On remembered examples such groups have the label of their middle to {100 * expected.purity:.1f} %"
        in said.out
    )


def test_images_in_several_views(tmp_path, capsys):
    x, y = strokes()
    config = TrainConfig(epochs=4, slots_per_class=3, views="cross1", held_out=0.3)
    made, _ = fit(x, y, backbone=build("pixels", input_shape=(1, *x.shape[1:3])), config=config)
    made.save(tmp_path / "m")
    new = np.random.default_rng(0).integers(0, 60, (60, 8, 8)).astype(np.uint8)
    for i, image in enumerate(new):
        np.fill_diagonal(image if i % 2 else image[:, ::-1], 255)
    np.save(tmp_path / "x.npy", new)
    out = tmp_path / "out"
    found = json.loads(propose(capsys, tmp_path / "m", tmp_path / "x.npy", out, "--rows", 25, "--budget", 4).out)
    expected = made.propose(new, budget=4)
    assert expected.purity is not None
    assert (found["radius"], found["purity"]) == (expected.radius, expected.purity)
    assert [int(it["row"]) for it in asked(out)] == expected.queries.tolist()
    assert [int(it["gain"]) for it in asked(out)] == expected.gains.tolist()


def test_nothing_depends_on_cuts_files_or_workers(model, tmp_path, capsys):
    """Fewer candidates than unmatched rows, so that chance chooses: by the rows' names alone."""
    x, folder = rows(700), tmp_path / "data"
    (folder / "deep").mkdir(parents=True)
    np.save(folder / "a.npy", x[:400])
    np.save(folder / "deep" / "b.npy", x[400:])
    found = []
    for size, workers in ((1000, 1), (130, 1), (59, 2)):
        out = tmp_path / f"out{size}"
        more = ["--rows", size, "--workers", workers, "--budget", 9, "--max-candidates", 60]
        found.append((propose(capsys, model, folder / "**" / "*.npy", out, *more).out, asked(out), groups(out)))
    documents = [json.loads(it) for it, _, _ in found]
    assert [it.pop("of") for it in documents] == [2, 7, 13]
    for it in documents:
        del it["out"], it["shards"]
    assert documents[0] == documents[1] == documents[2]
    assert documents[0]["candidates"] == 60
    assert found[0][1:] == found[1][1:] == found[2][1:]
    assert {it["file"] for it in found[0][1]} == {"a.npy", "deep/b.npy"}
    assert found[0][1] == sorted(found[0][1], key=lambda it: -int(it["gain"]))
    whole = SlotModel.load(model).propose(x, budget=9)
    assert documents[0]["radius"] == whole.radius
    assert documents[0]["covered"] > 0.8 * whole.covered  # an even sample does nearly as well as all


def test_a_candidate_covers_itself_in_its_shard(model, tmp_path, capsys):
    """And in no other, even where its cap holds nothing at all."""
    for name in ("a", "b"):
        np.save(tmp_path / f"{name}.npy", rows(30))
    options = "--rows", 11, "--radius", 0, "--budget", 100
    found = json.loads(propose(capsys, model, tmp_path / "?.npy", tmp_path / "out", *options).out)
    assert found["queries"] == found["covered"] == found["unmatched"] > 10
    expected = [(name, row) for name in ("a.npy", "b.npy") for row in SlotModel.load(model).propose(rows(30)).unmatched]
    assert [(it["file"], int(it["row"])) for it in asked(tmp_path / "out")] == expected
    assert groups(tmp_path / "out") == {number: [place] for number, place in enumerate(expected)}


def test_hashes_look_drawn_evenly():
    found = np.concatenate([row_hashes(name, np.arange(5000)) for name in ("a", "b")])
    assert len(set(found.tolist())) == 10_000
    assert abs(found.astype(float).mean() / 2**63 - 0.5) < 0.01
    assert all(abs((found >> bit & 1).mean() - 0.5) < 0.03 for bit in range(63))
    assert row_hashes("a", np.array([7])) == found[7]


def test_a_run_that_is_stopped_goes_on_where_it_was(model, tmp_path, capsys):
    np.save(tmp_path / "x.npy", rows(200))
    options = Options("propose", 50, budget=5)
    call = model, str(tmp_path / "x.npy")
    answer_shards(*call, tmp_path / "whole", options)
    for most in range(1, 13):  # shards before each stop
        left = iter([False] * most)
        found = answer_shards(*call, tmp_path / "out", options, stop=lambda left=left: next(left, True))
        if found.shards == 4:
            break
        assert found.proposal is None or not (tmp_path / "out" / "queries.csv").exists()
    assert most > 2
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    stamps = {it: it.stat().st_mtime_ns for it in (tmp_path / "out" / "groups").glob("*.parquet")}
    again = "--shards", call[1], "--rows", 50, "--budget", 5, "--out", tmp_path / "out"
    assert "4 of 4" in told(capsys, "propose", model, *again).out
    assert {it: it.stat().st_mtime_ns for it in stamps} == stamps


def test_nothing_unmatched_and_nothing_at_all(model, tmp_path, capsys):
    np.save(tmp_path / "x.npy", np.eye(8, dtype=np.float32)[[0, 1, 2, 3, 4]])
    call = "propose", model, "--shards", tmp_path / "x.npy", "--rows", 2, "--out", tmp_path / "out"
    assert "5 rows in 3 of 3 shards: 5 matched, 0 grouped, 0 ungrouped" in told(capsys, *call).out
    assert "Every input is matched; there is nothing to ask." in told(capsys, *call).out
    assert asked(tmp_path / "out") == []
    assert groups(tmp_path / "out") == {}
    np.save(tmp_path / "none.npy", np.zeros((0, 8), np.float32))
    assert (
        "0 of 0 shards"
        in told(capsys, "propose", model, "--shards", tmp_path / "none.npy", "--out", tmp_path / "o").out
    )


def test_rows_without_a_direction_are_never_asked_about(model, tmp_path, capsys):
    x = rows(100)
    x[::3] = 0
    np.save(tmp_path / "x.npy", x)
    found = json.loads(propose(capsys, model, tmp_path / "x.npy", tmp_path / "out", "--rows", 30, "--radius", 0.4).out)
    expected = SlotModel.load(model).propose(x, radius=0.4)
    assert [int(it["row"]) for it in asked(tmp_path / "out")] == expected.queries.tolist()
    assert found["unmatched"] == len(expected.unmatched) >= 34
    assert found["candidates"] == sum(it % 3 > 0 for it in expected.unmatched.tolist())


def test_names_of_rows_cannot_become_formulas(model, tmp_path, capsys):
    names = ["=1+1", "@x", 'a"b', "c\nd", None, "-7", "é", "\ud800"]
    x = rows(64, seed=3)
    x[:, 6] += 3.0  # all near an axis that no slot is near to
    lines = [json.dumps({"v": row.tolist(), "key": names[i % 8]}) for i, row in enumerate(x)]
    (tmp_path / "=cmd.jsonl").write_text("\n".join(lines))
    propose(
        capsys, model, tmp_path / "*.jsonl", tmp_path / "out", "--id-column", "key", "--radius", 0.01, "--budget", 64
    )
    assert {it["file"] for it in asked(tmp_path / "out")} == {"'=cmd.jsonl"}
    ids = {it["id"] for it in asked(tmp_path / "out")}
    assert ids == {"'=1+1", "'@x", 'a"b', "c\nd", "", "'-7", "é", "\\ud800"}
    table = parquet.read_table(tmp_path / "out" / "groups")  # a folder that readers of Parquet take as it is
    assert set(table["id"].to_pylist()) == {*names[:-1], "\\ud800"}
    assert table.column_names == ["row", "id", "query", "nearest_label", "nearest_slot"]
    assert set(table["nearest_label"].to_pylist()) <= {"cat", "dog", "bird"}


REFUSED = [
    ({"--budget": 6}, "`out` holds answers with budget 5, asked for was 6"),
    ({"--radius": 0.3}, "`out` holds answers with radius None, asked for was 0.3"),
    ({"--radius": 30}, "`radius` must lie in [0, pi], got 30.0. It is an angle in radians; 0.5 is 29 degrees."),
    ({"--radius": "nan"}, "`radius` must lie in [0, pi], got nan"),
    ({"--purity": 1.5}, "`purity` must lie in (0, 1], got 1.5"),
    ({"--shards": "?.npy"}, "`shards` must be the files that "),
    ({"--out": None}, "--shards writes a file a shard and needs --out FOLDER, got none"),
    ({"--shards": None}, "slots propose takes --shards PATTERN, files of any size. For --data that fits into memory: "),
    ({"--data": "digits"}, "--data digits --dry-run"),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED, ids=[next(iter(it)) for it, _ in REFUSED])
def test_what_does_not_fit_is_refused_in_one_line(model, tmp_path, capsys, changes, message):
    np.save(tmp_path / "x.npy", rows(60))
    answer_shards(model, str(tmp_path / "x.npy"), tmp_path / "out", Options("propose", 20, budget=5))
    before = contents(tmp_path / "out")
    np.save(tmp_path / "y.npy", rows(60))
    options = {"--shards": "x.npy", "--rows": 20, "--out": "out", "--budget": 5, **changes}
    options |= {key: tmp_path / options[key] for key in ("--shards", "--out") if options[key] is not None}
    words = [str(it) for key, value in options.items() if value is not None for it in (key, value)]
    printed = told(capsys, "propose", model, *words, status=2)
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert contents(tmp_path / "out") == before


def test_rows_that_cannot_be_answered_stop_the_choice(model, tmp_path, capsys):
    """It would be another one without them, so they must be mended first."""
    x = rows(60)
    x[25, 3] = np.nan
    np.save(tmp_path / "x.npy", x)
    printed = propose(capsys, model, tmp_path / "x.npy", tmp_path / "out", "--rows", 20, status=2)
    assert "1 of 3 shards could not be answered, 'x-1' first: `x` must be finite, got NaN" in printed.err
    assert not (tmp_path / "out" / "queries.csv").exists()
    np.save(tmp_path / "x.npy", rows(60))
    propose(capsys, model, tmp_path / "x.npy", tmp_path / "out", "--rows", 20)
    assert len(asked(tmp_path / "out")) > 1


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc for the workers")
def test_killed_workers_lose_nothing(model, tmp_path):
    """The command's own workers, killed at random moments, and the same command run by somebody else meanwhile."""
    np.save(tmp_path / "x.npy", rows(600))
    options = Options("propose", 20, budget=12, max_candidates=100)
    answer_shards(model, str(tmp_path / "x.npy"), tmp_path / "whole", options)
    out = tmp_path / "killed"
    process = nursery.begin([
        "propose", model, "--shards", tmp_path / "x.npy", "--rows", "20", "--out", out, "--workers", "2",
        "--budget", "12", "--max-candidates", "100",
    ])  # fmt: skip
    rng, killed = random.Random(0), 0
    while process.poll() is None and killed < 4:
        time.sleep(rng.uniform(0, 0.3))
        workers = workers_of(process.pid)
        if len(workers) > 1 and list(out.glob(".run/unmatched/*.parquet")):
            os.kill(rng.choice(workers), signal.SIGKILL)
            killed += 1
    assert answer_shards(model, str(tmp_path / "x.npy"), out, options).shards == 30
    said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert killed >= 3
    assert contents(out) == contents(tmp_path / "whole")
    assert not list(out.glob("**/.*.tmp"))


def test_a_worker_elsewhere_shares_a_pass(model, tmp_path):
    np.save(tmp_path / "x.npy", rows(100))
    options = Options("propose", 10, budget=3)
    shards = answer_shards(model, str(tmp_path / "x.npy"), tmp_path / "whole", options).of
    run = begin(tmp_path / "out", model, options, find_shards(str(tmp_path / "x.npy"), rows=10))
    folder, _ = begin_step(tmp_path / "out", run, "unmatched")
    work(folder)
    assert len(list(folder.glob("*.parquet"))) == shards == 10
    assert answer_shards(model, str(tmp_path / "x.npy"), tmp_path / "out", options).shards == 10
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_actors_of_ray_choose_the_same(model, tmp_path, monkeypatch):
    """On a cluster of this machine alone, where Ray is installed."""
    pytest.importorskip("ray", reason="pip install 'neural-slots[ray]'")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(it for it in sys.path if it))  # for Ray's own processes
    np.save(tmp_path / "x.npy", rows(100))
    options = Options("propose", 20, budget=3)
    answer_shards(model, str(tmp_path / "x.npy"), tmp_path / "whole", options)
    answer_shards(model, str(tmp_path / "x.npy"), tmp_path / "out", options, workers=2, engine="ray")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
