"""Running a protocol over seeds: what is kept, what is computed again, what is refused, and what the files say."""

import json
import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from support.pages import asked_for, parse
from support.policies import refused

from protocols.data.loading import load_data
from protocols.harness.outcome import Column, Curve, Row, SeedOutcome, merge_rows, to_json
from protocols.harness.page import write_files
from protocols.harness.protocol import Protocol, Setting
from protocols.harness.runner import Outcome, run
from protocols.harness.tables import cell, markdown, markdown_table, notes, terminal_rows
from protocols.summaries.intervals import Interval, interval
from slots.errors import StorageError, UsageError

COLUMNS = [
    Column("accuracy", "test accuracy"),
    Column("memory", "memory", "bytes", "lower"),
    Column("never", "never measured"),
]


class Counting:
    """A protocol that measures the nearest class mean of digits, and counts how often it was asked to."""

    def __init__(self):
        self.calls = []
        self.protocol = Protocol(
            "means", "Class means", "What class means know.", COLUMNS, "accuracy", ("chance",),
            {"share": 0.5, "k": [1]}, self.measure,
        )  # fmt: skip

    def measure(self, setting, seed, report):
        self.calls.append(seed)
        report("measuring", 0.5)
        data, rng = setting.data, np.random.default_rng(seed)
        x, y = data.x_train.reshape(len(data.x_train), -1).astype(float), data.y_train
        some = rng.permutation(len(x))[: int(self.protocol.option(setting, "share") * len(x))]
        means = np.stack([x[some][y[some] == c].mean(0) for c in range(10)])
        found = ((data.x_test.reshape(len(data.x_test), 1, -1) - means) ** 2).sum(2).argmin(1)
        rows = [Row("means", {"accuracy": float((found == data.y_test).mean()), "memory": 5120.0}, ours=True)]
        if "chance" in setting.peers:
            rows.append(Row("chance", {"accuracy": 0.1, "memory": math.nan}, note="Nobody would pick it."))
        curve = Curve("growth", "means", [1, 10], [0.5, rows[0].figures["accuracy"]], "share", "accuracy", ours=True)
        other = Curve("growth", "chance", [1, 10], [0.1, 0.1], "share", "accuracy")
        return SeedOutcome(rows, [curve, other], {"n": np.int64(len(some))}, {"lda": "not installed"})


@pytest.fixture
def digits():
    return Setting(load_data("digits"), peers=("chance",))


def test_seeds_are_kept_and_used_again(tmp_path, digits):
    counting, steps = Counting(), []
    first = run(
        counting.protocol, digits, seeds=range(2), out=tmp_path, command="x", progress=lambda *it: steps.append(it)
    )
    assert counting.calls == [0, 1]
    assert steps == [("seed 1 of 2: measuring", 0.25), ("seed 2 of 2: measuring", 0.75)]
    again = run(counting.protocol, digits, seeds=range(3), out=tmp_path, command="x")
    assert counting.calls == [0, 1, 2]
    assert again.seeds[:2] == first.seeds
    other = Setting(digits.data, options={"share": 0.6})
    run(counting.protocol, other, seeds=range(1), out=tmp_path, command="x")
    assert counting.calls == [0, 1, 2, 0]


def test_a_stop_leaves_what_is_done(tmp_path, digits):
    counting = Counting()
    found = run(counting.protocol, digits, seeds=range(5), out=tmp_path, command="x", stop=lambda: counting.calls)
    assert [it.seed for it in found.seeds] == [0]
    with pytest.raises(UsageError, match="`seeds` must name at least one seed, got none that was finished"):
        run(counting.protocol, digits, seeds=range(5), out=tmp_path, command="x", stop=lambda: True)


def test_a_damaged_seed_is_named(tmp_path, digits):
    counting = Counting()
    run(counting.protocol, digits, seeds=[0], out=tmp_path, command="x")
    (path,) = (tmp_path / "seeds").iterdir()
    path.write_text(path.read_text()[:100])
    with pytest.raises(StorageError, match="must be a finished seed, got damaged content"):
        run(counting.protocol, digits, seeds=[0], out=tmp_path, command="x")


@pytest.mark.parametrize(
    ("options", "peers", "sentence"),
    [
        ({"size": 1}, (), "`option` of means must be one of share, k, got 'size'. Remove or rename it."),
        ({"share": "half"}, (), '`share` must be like its default 0.5, got "half". Pass --option share=0.5.'),
        ({"share": True}, (), "`share` must be like its default 0.5, got true."),
        ({"k": ["a"]}, (), '`k` must be like its default [1], got ["a"].'),
        ({}, ("guess",), "`peers` of means must be all, none or some of chance, got guess. Remove or rename them."),
    ],
)
def test_misuse_is_refused_before_anything_is_computed(tmp_path, digits, options, peers, sentence):
    counting = Counting()
    with pytest.raises(UsageError, match=re.escape(sentence)):
        run(counting.protocol, Setting(digits.data, options=options, peers=peers), seeds=[0], out=tmp_path, command="x")
    assert not counting.calls


def test_data_without_labels_is_refused(tmp_path):
    np.savez(tmp_path / "rows.npz", x_train=np.eye(4, dtype=np.float32))
    with pytest.raises(UsageError, match="`data` must have labels to measure with, got none in 'rows'"):
        run(Counting().protocol, Setting(load_data(tmp_path / "rows.npz")), seeds=[0], out=tmp_path, command="x")


def test_the_files_say_the_same(tmp_path, digits):
    counting = Counting()
    found = run(counting.protocol, digits, seeds=range(3), out=tmp_path, command="slots run means", stop=None)
    files = write_files(found, tmp_path)
    document = json.loads(files.json.read_text())
    assert Outcome.from_json(document).as_json() == document == found.as_json()
    assert document["schema"] == 1
    assert [it["seed"] for it in document["seeds"]] == [0, 1, 2]
    assert document["hardware"]["processor"]
    assert document["versions"]["torch"]
    mean = np.mean([it["outcome"]["rows"][0]["figures"]["accuracy"] for it in document["seeds"]])
    page = files.page.read_text()
    assert set(asked_for(parse(page))) <= {"data:,", "#main"}
    assert refused(page) == []
    for text in (files.markdown.read_text(), page):
        assert f"{100 * mean:.2f}" in text
        assert "slots run means" in text
        assert "never measured" not in text
        assert "lda was not run: not installed" in text
    assert page.count("<svg") == 1
    assert "#000000" not in page


def test_tables_by_hand():
    columns = [Column("a", "accuracy"), Column("s", "time", "seconds", "lower"), Column("n", "slots", "count", None)]
    seeds = [
        SeedOutcome(
            [Row("ours", {"a": 0.8, "s": 3.0, "n": 10}, ours=True, note="n."), Row("peer", {"a": 0.7, "s": 1})]
        ),
        SeedOutcome([Row("ours", {"a": 0.9, "s": 3.0, "n": 10}, ours=True, note="n."), Row("peer", {"a": 0.7})]),
    ]
    rows = merge_rows(seeds, columns)
    assert markdown_table(rows, columns).splitlines() == [
        "| method | accuracy, % | time, s | slots |",
        "|---|---|---|---|",
        "| **ours** | **85.00 ± 63.53** | 3.0 | 10 |",
        "| peer | 70.00 | **1.0** | - |",
    ]
    assert terminal_rows(rows, columns, "a")[1] == ("* ours", "85.00 ± 63.53", "3.0", "10")
    assert terminal_rows(rows, columns, "s")[1] == ("* ours", "85.00", "3.0", "10")
    outcome = Outcome(
        "p", "P", "About.", "a", columns, [], "c", "d", "e", "b", {}, {},
        {"processor": "x", "threads": 1, "gpu": None}, None,
    )  # fmt: skip
    assert notes(outcome) == []
    assert "commit unknown" in markdown(outcome)


@pytest.mark.parametrize(
    ("found", "kind", "text"),
    [
        (Interval(2.5e6, 1.0, 3), "bytes", "2.50"),
        (Interval(0.4567, 0.01, 3), "score", "0.457 ± 0.010"),
        (Interval(1234.0, 0.0, 3), "count", "1,234"),
        (Interval(12.5, 1.5, 3), "count", "12.5 ± 1.5"),
        (Interval(0.5, 0.0, 3), "share", "50.00"),
    ],
)
def test_cells(found, kind, text):
    assert cell(found, kind) == text


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=8))
def test_intervals_are_those_of_scipy(values):
    found = interval([*values, math.nan])
    assert found.n == len(values)
    assert math.isclose(found.mean, np.mean(values), abs_tol=1e-9)
    scale = stats.sem(values)
    if scale > 1e-9:
        low, high = stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=scale)
        assert math.isclose(found.half, (high - low) / 2, rel_tol=1e-6)


def test_plain_values():
    assert to_json({"a": np.float32(0.5), 1: [np.int64(2), math.inf], "c": np.array([True])}) == {
        "a": 0.5, "1": [2, None], "c": [True],
    }  # fmt: skip
