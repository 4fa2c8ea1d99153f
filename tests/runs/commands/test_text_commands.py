"""Text through every command, with an encoder of random weights; what people write is escaped wherever it is shown."""

import csv
import io
import json

import numpy as np
import pytest
from support.encoders import tiny_encoder
from support.pages import parse

from protocols.commands import main

TOPICS = {
    'bank, "my"': ["what", "is", "my", "balance", "money", "bank", "pay", "bill"],
    "<weather>": ["weather", "rain", "sun", "today", "tomorrow"],
    "müsic": ["play", "song", "music", "the"],
}
NASTY = ' "quoted", comma\nand <script>alert(1)</script> & ünï 漢字 🙂'


def rows(n, seed, topics=tuple(TOPICS)):
    rng = np.random.default_rng(seed)
    labels = [topics[i % len(topics)] for i in range(n)]
    return [(" ".join(rng.choice(TOPICS[label], 5)) + NASTY, label) for label in labels]


def write(path, table, header=("text", "intent")):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *table])
    return path


def call(*arguments, status=0):
    with pytest.raises(SystemExit) as end:
        main([*map(str, arguments)])
    assert end.value.code == status


@pytest.fixture
def run(capsys):
    """Run a command in this process; returns what ``--json`` printed, or the line of an error."""

    def run(*arguments, status=0):
        capsys.readouterr()
        call(*arguments, *(["--json"] if status == 0 else []), status=status)
        printed = capsys.readouterr()
        return json.loads(printed.out) if status == 0 else printed.err

    return run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the encoder, and a model fitted on two of three topics."""
    root = tmp_path_factory.mktemp("text")
    encoder = tiny_encoder(root / "tiny")
    known = rows(600, seed=0, topics=tuple(TOPICS)[:2])
    write(root / "known.csv", known)
    write(root / "new.csv", [(text, "") for text, _ in rows(90, seed=1)])
    call(
        "fit",
        "--data",
        root / "known.csv",
        "--backbone",
        f"text:{encoder}",
        "--reach",
        0.8,
        "--out",
        root / "m",
        "--json",
    )
    return root


def texts_of(page, **wanted):
    return [quote.text for quote in page.all("blockquote", **wanted)]


def squeezed(text):
    return " ".join(text.split())


def test_the_report_shows_texts_and_runs_none(folder):
    source = (folder / "m" / "report.html").read_text()
    assert "<script>alert" not in source
    page = parse(source)
    known = {squeezed(text) for text, _ in rows(600, seed=0, topics=tuple(TOPICS)[:2])}
    shown = [squeezed(text) for text in texts_of(page, cls="said")]
    assert len(shown) > 10
    assert set(shown) <= known
    cards = page.by_id("gallery").all("li", cls="card")
    assert all(card.all("blockquote") for card in cards)
    assert page.all("img") == []


def test_answers_carry_their_texts(run, folder, tmp_path):
    answers = run("predict", folder / "m", "--data", folder / "new.csv")["answers"]
    wanted = [text for text, _ in rows(90, seed=1)]
    assert [it["text"] for it in answers] == wanted
    call("predict", folder / "m", "--data", folder / "new.csv", "--out", tmp_path / "a.csv")
    table = list(csv.DictReader(io.StringIO((tmp_path / "a.csv").read_text(), newline="")))
    assert [row["text"] for row in table] == wanted
    said = run("predict", folder / "m", "weather rain", wanted[3])["answers"]
    assert [it["text"] for it in said] == ["weather rain", wanted[3]]
    assert said[1]["margin"] == answers[3]["margin"]  # alone and in a batch


def test_measuring_and_showing(run, folder):
    found = run("evaluate", folder / "m", "--data", folder / "known.csv")
    assert found["n"] == 120
    assert found["accuracy"] > 0.9
    shown = run("show", folder / "m")
    assert shown["backbone"].startswith("text:")
    assert shown["input"] == "text"
    known = [squeezed(text) for text, _ in rows(600, seed=0, topics=tuple(TOPICS)[:2])]
    assert all(it["remembers"] in known for it in shown["classes"])


def test_showing_needs_no_encoder(folder, tmp_path, run, monkeypatch):
    monkeypatch.setattr("backbones.text.encoder._load", None)
    assert run("show", folder / "m")["features"] == 16
    assert run("log", folder / "m")["generations"]


def test_novelty_carries_texts(run, folder):
    found = run("ood", folder / "m", "--data", folder / "new.csv", "--false-alarm-rate", 0.1)
    assert [it["text"] for it in found["inputs"]] == [text for text, _ in rows(90, seed=1)]


def test_queries_are_texts_and_their_labels_come_back(run, folder, tmp_path):
    from shutil import copytree

    model = copytree(folder / "m", tmp_path / "m")
    asked = run("update", model, "--data", folder / "new.csv", "--budget", 6, "--dry-run")
    assert asked["queries"]
    truth = rows(90, seed=1)
    with (model / "queries.csv").open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert [row["text"] for row in table] == [truth[int(row["example"])][0] for row in table]
    source = (model / "queries.html").read_text()
    assert "<script>alert" not in source
    page = parse(source)
    fields = page.all("input")
    assert [field.attributes["data-text"] for field in fields] == [row["text"] for row in table]
    assert [squeezed(text) for text in texts_of(page)] == [squeezed(row["text"]) for row in table]
    for row in table:
        row["label"] = truth[int(row["example"])][1]
    write(tmp_path / "labels.csv", [tuple(row.values()) for row in table], header=tuple(table[0]))
    bad = [*table[:2], {**table[2], "example": "9999"}]
    write(tmp_path / "bad.csv", [tuple(row.values()) for row in bad], header=tuple(table[0]))
    said = run("update", model, "--data", folder / "new.csv", "--labels", tmp_path / "bad.csv", status=3)
    assert "bad.csv, line 7)" in said  # a header, and three rows of two lines each
    done = run("update", model, "--data", folder / "new.csv", "--labels", tmp_path / "labels.csv")
    assert done["labels_used"] == len(table)
    assert done["changed_matched_answers"] == 0
    assert "müsic" in {it["class"] for it in run("show", model)["classes"]}


def test_wrong_labels_are_listed_with_their_texts(run, folder, tmp_path):
    table = rows(120, seed=4, topics=tuple(TOPICS)[:2])
    wrong = [9, 40, 77]
    other = dict(zip(list(TOPICS)[:2], list(TOPICS)[1::-1], strict=True))
    noisy = [(text, other[label] if i in wrong else label) for i, (text, label) in enumerate(table)]
    write(tmp_path / "noisy.csv", noisy)
    encoder = f"text:{folder / 'tiny' / 'encoder'}"
    for judge in (["--backbone", encoder], ["--data", tmp_path / "noisy.csv"]):
        source = folder / "m" if "--data" in judge else tmp_path / "noisy.csv"
        found = run("clean", source, *judge, "--limit", 3, "--out", tmp_path / "clean")
        assert found["n_examples"] == 120
        with (tmp_path / "clean" / "label-errors.csv").open(newline="", encoding="utf-8") as file:
            listed = list(csv.DictReader(file))
        assert len(set(wrong) & {int(row["example"]) for row in listed}) >= 2
        assert all(row["text"] == table[int(row["example"])][0] for row in listed)
        page = (tmp_path / "clean" / "label-errors.html").read_text()
        assert "<script>alert" not in page
        assert "<weather>" not in page
        known = {squeezed(text) for text, _ in table}
        assert {squeezed(text) for text in texts_of(parse(page), cls="said")} <= known
        assert len(texts_of(parse(page), cls="said")) >= 9


def test_a_protocol_runs_on_the_features_of_texts(run, folder, tmp_path):
    arguments = ("--data", folder / "known.csv", "--peers", "none", "--seeds", 1, "--data-dir", tmp_path)
    encoder = f"text:{folder / 'tiny' / 'encoder'}"
    found = run("run", "unsupervised", *arguments, "--backbone", encoder, "--out", tmp_path / "a")
    assert found["backbone"] == encoder
    assert len(list((tmp_path / "features").glob("text-*.npy"))) == 1
    again = run("run", "unsupervised", *arguments, "--model", folder / "m", "--out", tmp_path / "b")
    assert again["backbone"] == encoder
    assert len(again["rows"]) == len(found["rows"]) > 0


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (
            ("fit", "--data", "known.csv"),
            2,
            "`backbone` must be text:NAME for text, got none. For example --backbone text:",
        ),
        (("fit", "--data", "known.csv", "--backbone", "cnn"), 2, "`backbone` must be text:NAME for text, got cnn."),
        (("fit", "--data", "known.csv", "--backbone", "text:none-such"), 2, "nothing is downloaded here"),
        (
            ("fit", "--data", "digits", "--backbone", "text:x"),
            2,
            "must be left out or a network for images",
        ),
        (
            ("fit", "--data", "known.csv", "--backbone", "text:x", "--weights", "w"),
            2,
            "must come without options",
        ),
        (("clean", "known.csv"), 2, "`backbone` must be text:NAME for text, got none."),
        (("run", "unsupervised", "--data", "known.csv"), 2, "`backbone` must be text:NAME for text, got none."),
        (("predict", "m", "--data", "digits"), 3, "`x` must be a list of texts, got uint8"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(run, folder, monkeypatch, arguments, status, message):
    monkeypatch.chdir(folder)
    said = run(*arguments, status=status)
    assert message in said
    assert said.count("\n") == 1
