"""What people bring, through the commands: embeddings with names as labels, and tables."""

import json

import numpy as np
import pytest

from protocols.commands import main


@pytest.fixture
def run(capsys):
    """Run a command in this process; returns what ``--json`` printed."""

    def call(*arguments, status=0):
        with pytest.raises(SystemExit) as end:
            main([*map(str, arguments), *(["--json"] if status == 0 else [])])
        printed = capsys.readouterr()
        assert end.value.code == status, printed.err
        return json.loads(printed.out) if status == 0 else printed.err

    return call


def embeddings(n, seed=0):
    rng = np.random.default_rng(seed)
    kinds = np.arange(n) % 2
    return np.eye(5)[kinds] + rng.normal(0, 0.2, (n, 5)), np.array(["to bank", "weather"])[kinds]


@pytest.fixture
def fitted(run, tmp_path):
    rows, labels = embeddings(200)
    np.savez(tmp_path / "known.npz", embeddings=rows, labels=labels)
    return tmp_path / "model", run("fit", "--data", tmp_path / "known.npz", "--out", tmp_path / "model")


def test_names_are_classes(fitted):
    _, summary = fitted
    assert set(summary["slots_per_class"]) == {"to bank", "weather"}
    assert summary["test_accuracy"] > 0.9


def test_the_file_of_the_fit_is_measured_on_what_was_set_aside(run, fitted, tmp_path):
    model, summary = fitted
    seen = run("evaluate", model, "--data", tmp_path / "known.npz")
    assert (seen["n"], seen["accuracy"]) == (40, summary["test_accuracy"])


def test_another_file_is_answered_as_a_whole_and_in_its_order(run, fitted, tmp_path):
    model, _ = fitted
    rows, labels = embeddings(60, seed=1)
    np.save(tmp_path / "new.npy", rows)
    (tmp_path / "new_labels.txt").write_text("\n".join(labels))
    measured = run("evaluate", model, "--data", tmp_path / "new.npy")
    assert measured["n"] == 60
    assert measured["accuracy"] > 0.9
    answers = run("predict", model, "--data", tmp_path / "new.npy")["answers"]
    assert [int(it["input"]) for it in answers] == list(range(60))
    assert np.mean([it["label"] == label for it, label in zip(answers, labels, strict=True)]) == measured["accuracy"]


def test_labels_are_compared_by_name(run, fitted, tmp_path):
    model, _ = fitted
    rows, _ = embeddings(40, seed=2)
    np.savez(tmp_path / "one.npz", x=rows[1::2], y=["weather"] * 20)  # their place among these names is 0, not 1
    assert run("evaluate", model, "--data", tmp_path / "one.npz")["accuracy"] > 0.9
    np.savez(tmp_path / "numbers.npz", x=rows, y=np.arange(40) % 2)  # without names, numbers are places
    assert run("evaluate", model, "--data", tmp_path / "numbers.npz")["accuracy"] > 0.9


def test_a_fit_on_some_classes_knows_its_file(run, tmp_path):
    rows, labels = embeddings(200)
    np.savez(tmp_path / "all.npz", x=rows, y=labels)
    summary = run("fit", "--data", tmp_path / "all.npz", "--classes", "weather", "--out", tmp_path / "m")
    assert set(summary["slots_per_class"]) == {"to bank", "weather"}
    assert summary["slots_per_class"]["to bank"] == 0
    assert run("evaluate", tmp_path / "m", "--data", tmp_path / "all.npz")["n"] == 40


def test_clean_looks_at_every_row_of_a_file(run, tmp_path):
    rows, labels = embeddings(100)
    labels[7] = "weather" if labels[7] == "to bank" else "to bank"
    np.savez(tmp_path / "a.npz", x=rows, y=labels)
    found = run("clean", tmp_path / "a.npz", "--limit", 1, "--out", tmp_path / "clean")
    assert found["n_examples"] == 100
    listed = (tmp_path / "clean" / "label-errors.csv").read_text().splitlines()[1]
    assert listed.split(",")[1] == "7"


def test_columns_are_named_on_the_command_line(run, tmp_path):
    rows, labels = embeddings(100)
    table = "\n".join(
        f"{label},{i},{','.join(map(str, row))}" for i, (label, row) in enumerate(zip(labels, rows, strict=True))
    )
    (tmp_path / "a.csv").write_text("kind,label,a,b,c,d,e\n" + table + "\n")
    found = run("fit", "--data", tmp_path / "a.csv", "--label-column", "kind", "--epochs", 1, "--out", tmp_path / "m")
    assert set(found["slots_per_class"]) == {"to bank", "weather"}
    refused = run("fit", "--data", tmp_path / "a.csv", "--label-column", "no", status=3)
    assert "a.csv` must have the column 'no', got kind, label, a, b, c, d, e." in refused
