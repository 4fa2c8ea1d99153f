"""Names come from strangers: as markup, as orders to a terminal, as formulas, or as no text at all."""

import csv
import io
import json
import os
import re
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from support import nursery
from support.policies import refused
from support.small_models import new_animals, three_animals

from protocols.app.queries import read_labels
from protocols.commands import main
from protocols.commands.terminal import print_csv, printable
from protocols.data.loading import load_data
from protocols.pages.environment import as_text, csv_text, from_text
from protocols.pages.queries_page import queries_page
from slots.errors import DataError
from slots.labels import numbered
from slots.model.editing import merge, relabel
from slots.model.slot_model import SlotModel

ESCAPES = "\x1b[2J\x1b]0;owned\x07\x9b31m\r\u202e\u2028"
EVIL = ("[/x]", "[red]x", ":smile:", ESCAPES + "cat", '<img src=x onerror="alert(1)">', "=HYPERLINK(1)")


def run(capsys, *arguments, status=0):
    with pytest.raises(SystemExit) as end:
        main([str(a) for a in arguments])
    printed = capsys.readouterr()
    assert end.value.code == status, printed.err
    return printed


@pytest.fixture
def folder(tmp_path):
    three_animals().save(tmp_path / "m")
    return tmp_path / "m"


@pytest.mark.parametrize("name", EVIL)
def test_a_label_is_no_markup_and_no_order_to_the_terminal(name, folder, tmp_path, capsys):
    said = run(capsys, "relabel", folder, "--slots", "0", "--label", name).out
    said += run(capsys, "log", folder).out + run(capsys, "show", folder).out + run(capsys, "diff", folder, 0, 1).out
    np.savez(tmp_path / "x.npz", x_test=np.eye(8, dtype=np.float32)[:1])
    run(capsys, "predict", folder, "--data", tmp_path / "x.npz", "--out", tmp_path / "a.csv")
    (row,) = csv.DictReader(io.StringIO((tmp_path / "a.csv").read_bytes().decode(), newline=""))
    assert from_text(row["label"]) == name
    run(capsys, "undo", folder, "--to", 0)
    said += run(capsys, "log", folder).out + run(capsys, "diff", folder, "0", "1").out
    assert said.count(printable(name)) >= 4
    assert all(it == "\n" or printable(it) == it for it in said)
    failed = run(capsys, "relabel", folder, "--cluster", name + "?", "--label", "x", status=2).err
    assert len(failed.splitlines()) == 1
    assert all(it == "\n" or printable(it) == it for it in failed)


@given(st.text())
def test_what_is_printed_steers_nothing_and_can_be_told_apart(text):
    shown = printable(text)
    assert not any(it < " " or "\x7f" <= it <= "\x9f" or "\ud800" <= it <= "\udfff" for it in shown)
    assert not set(shown) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c\u2028\u2029")
    shown.encode()
    if text.isprintable():
        assert shown == text


def test_a_table_on_a_terminal_is_spelt_out_and_in_a_pipe_as_it_is(monkeypatch, capsys):
    print_csv("label\n\x1b[2J\n")
    assert capsys.readouterr().out == "label\n\x1b[2J\n"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    print_csv("label\n\x1b[2J\n")
    assert capsys.readouterr().out == "label\n\\x1b[2J\n"


@given(st.text())
def test_a_cell_is_no_formula_and_is_read_back_the_same(text):
    assert from_text(as_text(text)) == text
    assert as_text(text)[:1] not in tuple("=+-@\t\r")


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=4))
def test_a_row_of_texts_is_read_back_the_same(texts):
    table = csv_text(("first", *map(str, range(len(texts)))), [(-0.5, *texts), (-3, *texts)])
    lines = list(csv.reader(io.StringIO(table, newline="")))
    assert [[from_text(it) for it in line[1:]] for line in lines[1:]] == [texts, texts]
    assert [line[0] for line in lines[1:]] == ["-0.5", "-3"]  # numbers stay numbers


@given(st.lists(st.text(st.sampled_from("=+-@;\t\r\n'\",a ")), min_size=1, max_size=3))
def test_no_cell_is_a_formula_where_semicolons_part_them(texts):
    table = csv_text(("first", *map(str, range(len(texts)))), [(7, *texts)])
    cells = [
        cell.strip('"') for cell in re.split(r"[;\t\r\n]", table)
    ]  # the worst reader: quotes keep nothing together
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@"))]
    assert [from_text(as_text(it)) for it in texts] == texts


def test_a_label_of_the_list_may_look_like_a_formula(tmp_path):
    x = np.eye(6, dtype=np.float32)
    names = ["=1+1", "'=1", "-3", "@x", "it's", "+"]
    lines = [(row, name) for row, name in enumerate(names)]
    (tmp_path / "l.csv").write_text(csv_text(("example", "label"), lines))
    assert read_labels(tmp_path / "l.csv", x)[0] == dict(lines)
    (tmp_path / "by_hand.csv").write_text("example,label\n0,-3\n1,=x\n")
    assert read_labels(tmp_path / "by_hand.csv", x)[0] == {0: "-3", 1: "=x"}


def test_the_page_of_queries_runs_no_script_but_its_own():
    model = three_animals()
    model.class_names = ("<script>alert(1)</script>", "</style><style>*{}", '" onfocus="alert(1)')
    x = new_animals()
    text = queries_page(model, x, model.propose(x, budget=2), command="slots '<script>'")
    assert refused(text) == []
    broken = text.replace("</main>", "<script>alert(1)</script><b onclick=1></b></main>")
    assert refused(broken) == ["script", "onclick"]


HALF = "cat\ud800"


def test_half_of_a_character_is_refused_in_one_line(folder, tmp_path, capsys):
    model = SlotModel.load(folder)
    before = {name: value.clone() for name, value in model.head.state_dict().items()}
    sentence = r"must be text, got half of a character in 'cat\\ud800'\. Write it in UTF-8"
    for attempt in (
        lambda: relabel(model, [0], HALF),
        lambda: merge(model, ["cat", "dog"], HALF),
        lambda: model.update(new_animals(), {0: HALF}),
        lambda: numbered(["dog", HALF]),
    ):
        with pytest.raises(DataError, match=sentence):
            attempt()
    assert all((model.head.state_dict()[name] == value).all() for name, value in before.items())
    assert model.class_names == ("cat", "dog", "bird")
    (tmp_path / "t.jsonl").write_text('{"text": "hello", "label": "cat\\ud800"}\n')
    with pytest.raises(DataError, match=sentence):
        load_data(tmp_path / "t.jsonl")
    np.savez(tmp_path / "n.npz", x_train=np.eye(2, dtype=np.float32), y_train=[0, 1], class_names=np.array(["a", HALF]))
    with pytest.raises(DataError, match=sentence):
        load_data(tmp_path / "n.npz")
    done = run(capsys, "relabel", folder, "--slots", "0", "--label", HALF, status=3)
    assert "\\ud800" in done.err
    assert len(run(capsys, "log", folder).out.splitlines()) == 2


def test_a_model_with_half_a_character_in_a_name_can_be_read_and_mended(folder, tmp_path, capsys):
    model = SlotModel.load(folder)
    model.class_names = (HALF, "dog\ud800", "bird\ud800")  # as a foreign folder may hold it
    model.save(tmp_path / "h")
    assert "cat\\ud800" in run(capsys, "show", tmp_path / "h").out
    np.savez(tmp_path / "x.npz", x_test=new_animals())
    run(capsys, "update", tmp_path / "h", "--data", tmp_path / "x.npz", "--budget", 3, "--dry-run")
    assert "\\ud800" in (tmp_path / "h" / "queries.csv").read_text()
    assert "cat\\ud800" in (tmp_path / "h" / "queries.html").read_text()
    run(capsys, "relabel", tmp_path / "h", "--slots", "0,1", "--label", "cat")
    assert SlotModel.load(tmp_path / "h").class_name(int(SlotModel.load(tmp_path / "h").head.labels[0])) == "cat"


@pytest.mark.skipif(os.name == "nt", reason="file names are text there")
def test_folders_and_files_whose_names_are_no_text(tmp_path):
    root = os.fsencode(tmp_path / "data")
    for name, value in ((b"caf\xe9", 20), (b"caf\xea\x1b[2J", 220)):
        os.makedirs(os.path.join(root, name))
        for i in range(12):
            pixels = np.full((4, 4), value + i, np.uint8)
            Image.fromarray(pixels).save(os.path.join(root, name, b"%d\xff.png" % i).decode("utf-8", "surrogateescape"))
    data = load_data(tmp_path / "data")
    assert data.class_names == ("caf\\xe9", "caf\\xea\x1b[2J")
    model, file = tmp_path / "m", os.path.join(root, b"caf\xe9", b"3\xff.png")
    done = nursery.run(["fit", "--data", tmp_path / "data", "--epochs", "1", "--vouch", "none", "--out", model])
    assert done.returncode == 0, done.stderr
    assert refused((model / "report.html").read_text()) == []
    for out in ([], ["--out", tmp_path / "a.csv"], ["--json"]):
        done = nursery.run(["predict", model, file, *out])  # reads UTF-8
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "a.csv").read_text().count("3\\udcff.png") == 1
    assert json.loads(done.stdout)["answers"][0]["input"].endswith("3\udcff.png")
