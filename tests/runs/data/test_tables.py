"""Tables of text and of embeddings: which columns are found, that every character survives, and what is wrong."""

import csv
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.data.dataset import check_sum, only_classes, undivided
from protocols.data.loading import load_data
from slots.errors import DataError, UsageError

NASTY = ['a, "b"\nand c', "<b>bold</b> & 'more'", "ünïcödé 漢字 🙂", "tab\there", "=1+1", "x" * 200_000]


def write_csv(path, header, rows, **options):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, **options).writerows([header, *rows])
    return path


def write_jsonl(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def of(data):
    """Examples and names of their labels, in the order of the source."""
    data = undivided(data)
    names = (*data.class_names, None)
    return data.x_test.tolist(), [names[label] for label in data.y_test]


@pytest.mark.parametrize("text", ["text", "Sentence", " utterance", "QUERY"])
@pytest.mark.parametrize("label", ["label", "Intent", "class", "category"])
def test_columns_are_found_by_their_names(tmp_path, text, label):
    rows = [(i, "to_bank" if i % 2 else "weather", f"sentence {i}") for i in range(10)]
    data = load_data(write_csv(tmp_path / "mail.csv", ("id", label, text), rows))
    assert (data.name, data.kind, data.shape) == ("mail", "text", ())
    assert data.class_names == ("to_bank", "weather")
    assert of(data) == ([row[2] for row in rows], [row[1] for row in rows])
    assert (len(data.x_train), len(data.x_test)) == (8, 2)


def test_columns_are_named(tmp_path):
    path = write_csv(tmp_path / "a.csv", ("text", "said", "label", "kind"), [("1", "hello", "x", "greeting")])
    data = load_data(path, text_column="said", label_column="kind")
    assert of(data) == (["hello"], ["greeting"])
    with pytest.raises(DataError, match=r"a\.csv` must have the column 'other', got text, said, label, kind"):
        load_data(path, text_column="other")
    with pytest.raises(UsageError, match=r"A column must be left out for 'digits', got 'text'\. It is for tables"):
        load_data("digits", text_column="text")


def test_the_only_column_of_words_is_the_text(tmp_path):
    data = load_data(
        write_csv(tmp_path / "a.csv", ("id", "what they said", "y"), [("1", "hello", "7"), ("2", "you", "10")])
    )
    assert of(data) == (["hello", "you"], ["7", "10"])
    assert data.class_names == ("7", "10")


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_every_character_survives(tmp_path, delimiter):
    path = write_csv(tmp_path / "a.csv", ("text", "label"), [(text, text[:20]) for text in NASTY], delimiter=delimiter)
    data = load_data(path)
    texts, labels = of(data)
    assert texts == NASTY
    assert labels == [" ".join(text[:20].split()) for text in NASTY]


@given(st.lists(st.tuples(st.text(min_size=1), st.text()), min_size=1, max_size=12))
def test_any_text_is_read_as_it_was_written(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("any")
    rows = [
        ("." + text.encode("utf-8", "replace").decode(), label.encode("utf-8", "replace").decode())
        for text, label in rows
    ]
    rows = [(text.replace("\x00", ""), label.replace("\x00", "")) for text, label in rows]
    tables = [
        write_csv(folder / "a.csv", ("text", "label"), rows, quoting=csv.QUOTE_ALL),
        write_jsonl(folder / "a.jsonl", [{"text": text, "label": label} for text, label in rows]),
    ]
    for path in tables:
        texts, labels = of(load_data(path))
        assert texts == [text for text, _ in rows]
        assert labels == [" ".join(label.split()) or None for _, label in rows]


def test_rows_without_a_label_are_test_data(tmp_path):
    rows = [("one", "a"), ("two", ""), ("three", " ")] + [(f"more {i}", "a") for i in range(4)]
    data = load_data(write_csv(tmp_path / "a.csv", ("text", "label"), rows))
    assert "two" in data.x_test
    assert (data.y_test < 0).sum() == 2
    assert not (data.y_train < 0).any()
    bare = load_data(write_csv(tmp_path / "b.csv", ("text",), [("one",), ("two",)]))
    assert (len(bare.x_train), bare.x_test.tolist(), bare.has_labels) == (0, ["one", "two"], False)


def test_json_lines_and_lists(tmp_path):
    records = [{"text": "hello", "label": 3}, {"label": None, "text": "half \ud83d"}, {"text": 12}]
    for path in (write_jsonl(tmp_path / "a.jsonl", records), tmp_path / "a.json"):
        path.write_text(json.dumps(records)) if path.suffix == ".json" else None
        texts, labels = of(load_data(path))
        assert texts == ["hello", "half \ufffd", "12"]
        assert labels == ["3", None, None]


def test_a_column_tells_the_parts(tmp_path):
    rows = [("a", "x", "train"), ("b", "y", "Test"), ("c", "x", "validation"), ("d", "y", "train")]
    data = load_data(write_csv(tmp_path / "a.csv", ("text", "label", "split"), rows))
    assert (data.x_train.tolist(), data.x_test.tolist()) == (["a", "d"], ["b"])
    assert data.test_rows is None


def test_a_folder_of_two_tables(tmp_path):
    write_csv(tmp_path / "train.csv", ("text", "label"), [("a", "x"), ("b", "y")])
    write_jsonl(tmp_path / "test.jsonl", [{"text": "c", "label": "z"}])
    data = load_data(tmp_path)
    assert data.name == tmp_path.name
    assert data.class_names == ("x", "y", "z")
    assert (data.x_train.tolist(), data.y_train.tolist(), data.y_test.tolist()) == (["a", "b"], [0, 1], [2])
    write_jsonl(tmp_path / "test.jsonl", [{"vector": [1.0, 2.0], "label": "z"}])
    with pytest.raises(DataError, match="must have a train and a test table of the same form"):
        load_data(tmp_path)


def test_tables_of_embeddings(tmp_path):
    rows = np.random.default_rng(0).normal(size=(10, 3)).round(6)
    names = ["a", "b"] * 5
    vectors = [
        {"id": i, "emb": row.tolist(), "text": "so", "label": name}
        for i, (row, name) in enumerate(zip(rows, names, strict=True))
    ]
    wide = [(name, *row) for name, row in zip(names, rows, strict=True)]
    pandas = [(name, json.dumps(row.tolist())) for name, row in zip(names, rows, strict=True)]
    for path in (
        write_jsonl(tmp_path / "a.jsonl", vectors),
        write_csv(tmp_path / "a.csv", ("label", "f1", "f2", "f3"), wide),
        write_csv(tmp_path / "b.csv", ("label", "embedding"), pandas),
    ):
        found = undivided(load_data(path))
        assert found.kind == "features"
        assert np.allclose(found.x_test, rows)
        assert found.class_names == ("a", "b")
    assert load_data(tmp_path / "a.jsonl", text_column="text").kind == "text"


@pytest.mark.parametrize("form", ["list", "fixed", "float16", "columns", "text"])
def test_parquet(tmp_path, form):
    pa = pytest.importorskip("pyarrow", reason="pip install 'neural-slots[parquet]'")
    from pyarrow import parquet

    rows = np.random.default_rng(0).normal(size=(10, 3)).astype(np.float16 if form == "float16" else np.float32)
    names = pa.array(["a", "b"] * 5).dictionary_encode()
    if form == "columns":
        columns = {f"f{i}": column for i, column in enumerate(rows.T.copy())}
    elif form == "text":
        columns = {"sentence": NASTY[:5] * 2}
    elif form == "fixed":
        columns = {"v": pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), 3)}
    else:
        columns = {"v": pa.array(list(rows))}
    parquet.write_table(pa.table({**columns, "label": names}), tmp_path / "a.parquet")
    data = load_data(tmp_path / "a.parquet")
    assert data.class_names == ("a", "b")
    if form == "text":
        assert of(data)[0] == NASTY[:5] * 2
    else:
        assert np.array_equal(undivided(data).x_test, rows.astype(np.float32))


BAD = {
    "empty.csv": ("", "must hold at least one row, got none"),
    "header.csv": ("text,label\n", "must hold at least one row, got none"),
    "comma.csv": (
        "text,label\nhello, you,a\n",
        "must have 2 columns in each line, got 3 in line 2. Put texts with commas",
    ),
    "twice.csv": ("text,text\na,b\n", "must have columns of different names, got text, text"),
    "quote.csv": ('text,label\n"hello,a\n', "must be a CSV file in UTF-8, got: "),
    "hole.csv": ("text,label\na,x\n\n,y\n  ,z\n", "must hold a text in each row, got 2 without, the first in line 4"),
    "words.csv": (
        "one,two\na,b\n",
        "must have a column of sentences (text, sentence, utterance, query, ...), of vectors",
    ),
    "broken.jsonl": ('{"text": "a"}\n{"text": \n', "must be JSON in UTF-8, got: "),
    "list.jsonl": ("[1, 2]\n", "must hold objects such as"),
    "object.json": ('{"text": "a"}', "must hold objects such as"),
    "nested.jsonl": ('{"text": {"a": 1}}\n', "must hold text, got {'a': 1} in line 1"),
    "float.jsonl": ('{"text": "a", "label": 0.25}\n', "must hold classes, got the number 0.25"),
    "labels.jsonl": ('{"text": "a", "label": ["x"]}\n', "must hold one label an example, got ['x']"),
    "ragged.jsonl": ('{"v": [1, 2]}\n{"v": [1]}\n', "must hold vectors of 2 numbers, got 1 in line 2"),
    "two.jsonl": ('{"v": [1, 2], "w": [3]}\n', "must have one column of vectors, got v, w"),
    "nan.jsonl": ('{"v": [1, NaN]}\n', "must be finite numbers, got nan in row 0"),
    "bad.parquet": ("no parquet", "must be a Parquet file, got: "),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_with_a_table_is_said_in_one_line(tmp_path, name):
    content, message = BAD[name]
    if name.endswith(".parquet"):
        pytest.importorskip("pyarrow", reason="pip install 'neural-slots[parquet]'")
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError) as caught:
        load_data(tmp_path / name)
    assert message in str(caught.value)
    assert str(tmp_path / name) in str(caught.value)


def test_a_table_in_another_encoding(tmp_path):
    (tmp_path / "a.csv").write_bytes("text\nWörter\n".encode("latin-1"))
    with pytest.raises(DataError, match="must be a CSV file in UTF-8, got: 'utf-8' codec can't decode"):
        load_data(tmp_path / "a.csv")


def test_digests_and_check_sums_tell_texts_apart(tmp_path):
    variants = [[("ab", "x"), ("c", "x")], [("a", "x"), ("bc", "x")], [("ab", "x"), ("c", "y")], [("ab", "x")]]
    digests = {load_data(write_csv(tmp_path / "a.csv", ("text", "label"), rows)).digest for rows in variants}
    assert len(digests) == len(variants)
    x = np.array(["one", "two"], dtype=object)
    assert check_sum(x, 0) != check_sum(x, 1)
    assert check_sum(x, 1) == check_sum(np.array(["two"], dtype=object), 0)


def test_some_classes_of_a_table(tmp_path):
    rows = [(f"{name} {i}", name) for name in ("a", "b", "c") for i in range(5)]
    data = only_classes(load_data(write_csv(tmp_path / "a.csv", ("text", "label"), rows)), "a,c")
    assert sorted(data.x_train.tolist() + data.x_test.tolist()) == [text for text, name in rows if name != "b"]
