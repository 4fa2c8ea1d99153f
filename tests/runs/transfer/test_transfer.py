"""The suite end to end on digits, its peers, and its sums over sets and seeds."""

import importlib.util
import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom
from sklearn.neighbors import KNeighborsClassifier

import slots
from protocols.data.loading import load_data
from protocols.harness.outcome import Row, SeedOutcome
from protocols.harness.page import write_files
from protocols.harness.protocol import Setting
from protocols.harness.runner import run
from protocols.harness.tables import groups, wide_tables
from protocols.runs.transfer.classifiers import CLASSIFIERS, FIT, classifier_rows, tuned
from protocols.runs.transfer.protocol import PROTOCOL, findings
from protocols.runs.transfer.sources import Source
from protocols.runs.transfer.summary import promise, rank_rows, ranks
from protocols.runs.transfer.variants import make_task
from slots.errors import UsageError

pytestmark = pytest.mark.slow


def setting(tmp_path, *, peers=PROTOCOL.peers, **options):
    return Setting(load_data("digits"), peers=peers, options=options, data_dir=tmp_path)


def test_what_is_measured_is_the_fit_that_users_get():
    task = make_task(Source(load_data("digits")), "as it is", 0, examples=300, tests=100)
    rows = {row.method: row.figures for row in classifier_rows(task, 0, ()) if row.group == "accuracy"}
    model, result = slots.fit(task.x, task.y)
    assert result.look is not None
    assert rows[FIT]["size"] == model.head.n_slots
    assert rows[FIT]["accuracy"] == (model.predict(task.x_test).labels == task.y_test).mean()


def test_the_accuracy_question_end_to_end(tmp_path):
    chosen = setting(tmp_path, sets=["digits", "digits: 5 a class"], examples=200, tests=100, questions=["accuracy"])
    outcome = run(PROTOCOL, chosen, seeds=range(2), out=tmp_path, command="slots run transfer")
    plain = dict(groups(outcome.rows))
    assert list(plain) == ["accuracy, over the sets"]
    rows = {row.method: row for row in plain["accuracy, over the sets"]}
    assert len(rows) == 2 + len(CLASSIFIERS)
    assert sum(row.figures["rank"].mean for row in rows.values()) == pytest.approx(sum(range(1, len(rows) + 1)))
    assert all(row.figures["accuracy"].mean > 0.6 for row in rows.values())
    assert all(row.figures["sets"].mean == 2 for row in rows.values())
    accuracy, worth = wide_tables(outcome.rows, outcome.columns)
    assert [task for task, _ in accuracy.lines] == ["digits", "digits: 5 a class"]
    assert [it.method for it in worth.methods] == ["right when matched", "matched"]
    assert len(outcome.findings) == 2
    assert outcome.findings[0].startswith(f"{FIT}: right when matched")
    assert "mnist" not in outcome.skipped  # no pattern asks for it

    files = write_files(outcome, tmp_path)
    document = json.loads(files.json.read_text())
    assert document["findings"] == outcome.findings
    assert document["seeds"][0]["outcome"]["facts"]["sets"]["digits: 5 a class"]["examples"] == 50
    text, page = files.markdown.read_text(), files.page.read_text()
    for said in ("**accuracy, %**", "| digits: 5 a class |", outcome.findings[0]):
        assert said in text
    assert '<th scope="row">digits: 5 a class</th>' in page
    assert outcome.findings[0] in page


def test_every_question_end_to_end(tmp_path):
    """All of them on a small part of digits; without igraph, Leiden is named as not run."""
    chosen = setting(tmp_path, sets=["digits", "digits: turned classes"], examples=400, tests=200)
    outcome = PROTOCOL.run_seed(chosen, 0, lambda *_: None)
    over = {group: rows for group, rows in _by_group(outcome.rows).items() if group.endswith(", over the sets")}
    assert [group.removesuffix(", over the sets") for group in over] == [
        "accuracy", "novelty, near sets", "novelty, far sets", "clusters", "classes nobody has named", "updates",
        "groups of the first 20 queries", "stream of classes",
    ]  # fmt: skip
    assert all(any(row.ours for row in rows) for rows in over.values())
    assert [it for it, rows in over.items() if all(row.ours for row in rows)] == [
        "groups of the first 20 queries, over the sets"
    ]
    assert not [row.note for row in outcome.rows if row.note.startswith("Failed")]
    updates = {row.method: row.figures for row in over["updates, over the sets"]}
    assert updates["SlotModel.update"]["changed"] == 0
    assert 20 < updates["SlotModel.update"]["asked"] <= 60
    assert updates["left alone"]["drop"] == updates["left alone"]["behind"] == 0
    assert updates["SlotModel.update"]["worst_drop"] >= updates["SlotModel.update"]["drop"]
    near = {row.method: row.figures for row in over["novelty, near sets, over the sets"]}
    assert near["NoveltyDetector"]["auroc"] > 0.8
    assert near["NoveltyDetector"]["alarms"] < 0.2
    said = findings([outcome])
    assert len(said) == 4
    assert re.match(r"SlotModel.update: 8 updates; the old part fell by .* 0 matched answers changed.", said[2])
    assert re.match(
        r"Groups of the first 20 queries: [\d.]+ % of a group is of the query's class, .* 4 streams", said[3]
    )


def _by_group(rows):
    found = {}
    for row in rows:
        found.setdefault(row.group, []).append(row)
    return found


def test_a_library_that_is_missing_is_named(tmp_path, monkeypatch):
    there = importlib.util.find_spec
    monkeypatch.setattr(
        "protocols.runs.transfer.protocol.find_spec", lambda name: None if name == "igraph" else there(name)
    )
    chosen = setting(
        tmp_path, peers=("kmeans", "leiden"), sets=["digits"], examples=200, tests=50, questions=["clusters"]
    )
    outcome = PROTOCOL.run_seed(chosen, 0, lambda *_: None)
    assert outcome.skipped["leiden"] == "not installed: pip install 'neural-slots[peers]'"
    assert "k-means" in {row.method for row in outcome.rows}
    assert "Leiden" not in {row.method for row in outcome.rows}


def test_a_question_that_cannot_be_asked_is_named(tmp_path, monkeypatch):
    def refuse(*_, **_more):
        raise UsageError("No.")

    monkeypatch.setattr("protocols.runs.transfer.updates.fit", refuse)
    outcome = PROTOCOL.run_seed(setting(tmp_path, sets=["digits"], questions=["updates"]), 0, lambda *_: None)
    assert outcome.skipped["updates on digits"] == "No."
    assert outcome.rows == []


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"questions": ["speed"]}, "`questions` must be some of accuracy, novelty, .*, got speed. Rename them."),
        ({"questions": []}, "got none"),
        ({"sets": ["nothing"]}, "`sets` must name sets that can be made, got"),
        ({"examples": -1}, "`examples` and `tests` must be >= 0, got -1 and 1000"),
    ],
)
def test_misuse(tmp_path, options, sentence):
    with pytest.raises(UsageError, match=sentence):
        PROTOCOL.run_seed(setting(tmp_path, **options), 0, lambda *_: None)


def test_files_decide_whether_a_seed_is_kept(tmp_path):
    folder = tmp_path / "archives"
    folder.mkdir()
    rng = np.random.default_rng(0)

    def write(offset):
        y = np.arange(80) % 4
        x = np.eye(4)[y] + rng.normal(offset, 0.1, (80, 4))
        np.savez(folder / "rows.npz", x_train=x[:60], y_train=y[:60], x_test=x[60:], y_test=y[60:])

    def seeds():
        chosen = setting(tmp_path, peers=(), sets=["rows"], archives=str(folder), questions=["accuracy"])
        outcome = run(PROTOCOL, chosen, seeds=[0], out=tmp_path / "out", command="x")
        assert outcome.data == "digits and 1 more"
        digests.append(outcome.data_digest)
        return len(list((tmp_path / "out" / "seeds").iterdir()))

    digests = []
    write(0.0)
    assert (seeds(), seeds()) == (1, 1)
    write(1.0)
    assert seeds() == 2
    assert digests[0] == digests[1] != digests[2]


class TestPeers:
    @pytest.mark.parametrize("name", CLASSIFIERS)
    @pytest.mark.parametrize("variant", ["as it is", "1 to 100"])
    def test_every_peer_learns_digits(self, name, variant):
        task = make_task(Source(load_data("digits")), variant, 0, examples=400, tests=200)
        found = CLASSIFIERS[name][1](task, 0)
        assert (found.labels == task.y_test).mean() > (0.85 if variant == "as it is" else 0.5)
        assert 0 < found.size <= max(len(task.y), 100)

    def test_tuning_finds_what_is_best_held_out(self):
        """Labels that only the nearest neighbour can know: neighbours in pairs, far from all others."""
        rng = np.random.default_rng(0)
        middles = rng.uniform(-1000, 1000, (60, 2))
        x = np.repeat(middles, 6, axis=0) + rng.normal(0, 0.01, (360, 2))
        y = np.repeat(rng.integers(0, 2, 60), 6)
        found = tuned(KNeighborsClassifier, [60, 1], x.astype(np.float32), y, 0)
        assert found.n_neighbors == 1
        assert found.n_samples_fit_ == 360

    def test_one_example_a_class_takes_the_first(self):
        found = tuned(KNeighborsClassifier, [1, 2], np.eye(2, dtype=np.float32), np.arange(2), 0)
        assert found.n_neighbors == 1


class TestSummary:
    @given(st.lists(st.one_of(st.none(), st.integers(0, 3)), min_size=1, max_size=6))
    def test_ranks_by_counting(self, values):
        """Rank: one more than those ahead, plus half of the others that are equal."""
        known = [-1 if it is None else it for it in values]
        slow = [1 + sum(o > v for o in known) + (sum(o == v for o in known) - 1) / 2 for v in known]
        assert ranks(values) == slow
        assert ranks([None if it is None else -it for it in values], higher=False) == slow

    def test_rank_rows_by_hand(self):
        figures = {("a", "one"): 0.9, ("b", "one"): 0.8, ("a", "two"): 0.5, ("b", "two"): 0.5, ("b", "three"): 0.1}
        rows = [Row(m, {"accuracy": v}, group="accuracy", task=t, ours=m == "a") for (m, t), v in figures.items()]
        a, b = rank_rows(rows, "accuracy", "accuracy")
        assert a.figures == {"rank": (1 + 1.5 + 2) / 3, "first": 2 / 3, "sets": 3, "accuracy": pytest.approx(0.7)}
        assert b.figures == {
            "rank": (2 + 1.5 + 1) / 3, "first": 2 / 3, "sets": 3, "accuracy": pytest.approx(1.4 / 3)
        }  # fmt: skip
        (alone,) = rank_rows([row for row in rows if row.ours], "accuracy", "accuracy")
        assert alone.figures == {"sets": 2, "accuracy": pytest.approx(0.7)}
        assert (a.ours, b.ours, a.group) == (True, False, "accuracy, over the sets")

    def test_the_promise_is_pooled(self):
        def seed(*counts):
            named = enumerate(counts)
            rows = [Row("m", {"n_matched": n, "n_right": r}, group="accuracy", task=str(i)) for i, (r, n) in named]
            return SeedOutcome([*rows, Row("m", {"n_matched": 9e9}, group="accuracy, over the sets")])

        said = promise([seed((99, 100), (0, 0)), seed((180, 200))], group="accuracy", method="m", wanted=0.98)
        chance = binom.cdf(279, 300, 0.98)
        assert said == (
            f"m: right when matched 93.00 % of 300 matched test answers over 3 sets and seeds; promised 98 %: not held "
            f"(exact binomial test, p = {chance:.2g}); below it on 1 of 2, lowest 90.0 %."
        )
        assert ": held (" in promise([seed((98, 100))], group="accuracy", method="m", wanted=0.98)
        assert "no answer was matched" in promise([seed((0, 0))], group="accuracy", method="m", wanted=0.98)
