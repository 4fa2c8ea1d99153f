"""What `slots clean` finds, writes and refuses."""

import csv
import io
import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from support import pages
from support.nets import blobs
from support.policies import refused

from protocols.app.clean import COLUMNS, clean_and_write
from protocols.app.suspects import find_suspects
from protocols.data.dataset import Dataset, check_sum
from protocols.data.loading import load_data
from protocols.pages.cleaning_page import SHOWN
from protocols.summaries.cleaning import CleaningPlan
from slots.errors import DataError, UsageError
from slots.training.config import TrainConfig
from slots.training.fitting import fit

NAMES = ("ant", "bee", "<cow>", "dog")


def with_errors(y, count, n_classes, seed=0):
    given = y.copy()
    wrong = np.sort(np.random.default_rng(seed).choice(len(y), count, replace=False))
    given[wrong] = (y[wrong] + 1) % n_classes
    return given, wrong


@pytest.fixture(scope="module")
def rows():
    """Feature rows of which 25 have a wrong label, and 3 have none."""
    x, y = blobs(500, spread=0.3)
    given, wrong = with_errors(y, 25, 4)
    unlabelled = np.setdiff1d(np.arange(6), wrong)[:3]
    given[unlabelled] = -1
    return Dataset("rows", x, given, x[:30], np.full(30, -1), NAMES, "digest"), y, wrong


@pytest.fixture(scope="module")
def cleaned(rows, tmp_path_factory):
    out = tmp_path_factory.mktemp("clean") / "new"
    told = []
    summary = clean_and_write(
        rows[0], CleaningPlan(), out=out, command="slots clean rows.npz", progress=lambda *it: told.append(it)
    )
    assert {step for step, _ in told} == {"watching the training", "fitting slots to the rest", "evidence"}
    return summary, out


def lines_of(out):
    return list(csv.DictReader(io.StringIO((out / "label-errors.csv").read_text())))


def test_the_list_names_the_wrong_labels_and_their_evidence(rows, cleaned):
    data, y, wrong = rows
    summary, out = cleaned
    lines = lines_of(out)
    assert list(lines[0]) == list(COLUMNS)
    assert len(lines) == summary.listed == summary.estimated_errors
    assert [int(line["rank"]) for line in lines] == list(range(1, len(lines) + 1))
    listed = [int(line["example"]) for line in lines]
    assert len(set(listed) & set(wrong)) >= 0.9 * min(len(wrong), len(listed))
    suspicion = [float(line["suspicion"]) for line in lines]
    assert suspicion == sorted(suspicion, reverse=True)
    assert 0 <= suspicion[-1] <= suspicion[0] <= 1
    for line in lines:
        row = int(line["example"])
        assert line["given"] == NAMES[data.y_train[row]]
        assert line["check"] == check_sum(data.x_train, row)
        assert line["suggested"] != line["given"]
        assert NAMES[data.y_train[int(line["same"])]] == line["given"]
        assert NAMES[data.y_train[int(line["other"])]] == line["other_label"] != line["given"]
        assert not {line["same"], line["other"]} & set(map(str, listed))
        a, b = data.x_train[row], data.x_train[int(line["other"])]
        angle = np.arccos(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
        assert float(line["other_angle"]) == pytest.approx(angle, abs=2e-3)
    true = [line for line in lines[:15] if int(line["example"]) in wrong]
    assert all(line["suggested"] == NAMES[y[int(line["example"])]] for line in true)
    assert all(float(line["other_angle"]) < float(line["same_angle"]) for line in true)
    harmful = [line for line in true if line["slots"]]
    assert len(harmful) >= 0.9 * len(true)
    assert all(float(line["radians"]) > 0 for line in harmful)
    assert sum(int(line["matches"]) for line in harmful) > 0


def test_the_summary_is_json_and_counts_what_was_labelled(rows, cleaned):
    summary, out = cleaned
    assert json.loads(json.dumps(asdict(summary))) == asdict(summary)
    assert summary.n_examples == 497
    assert summary.schema == 1
    assert (summary.data, summary.part, summary.model, summary.backbone) == ("rows", "train", None, "none")
    assert summary.table == str(out / "label-errors.csv")
    assert 0 < summary.slots_held_back <= summary.n_slots
    counts = [it.count for it in summary.confused]
    assert counts == sorted(counts, reverse=True)
    largest = summary.confused[0]
    assert (NAMES.index(largest.true) + 1) % 4 == NAMES.index(largest.given)


def test_the_page_of_rows_is_a_table_and_escapes_names(cleaned):
    summary, out = cleaned
    text = (out / "label-errors.html").read_text()
    page = pages.parse(text)
    assert pages.asked_for(page) == ["data:,", "#main", "#confused", "#suspects", "#facts"]
    assert refused(text) == []
    assert page.by_id("main")
    lines = lines_of(out)
    table = page.by_id("suspects").all("tr")
    assert len(table) == 1 + len(lines)
    assert lines[0]["example"] in table[1].text
    assert "<cow>" in page.text
    assert f"{summary.listed} suspicious labels in rows" in page.text
    assert "slots clean rows.npz" in page.by_id("facts").text


def test_equal_seeds_list_the_same(rows, cleaned, tmp_path):
    clean_and_write(rows[0], CleaningPlan(), out=tmp_path, command="")
    assert (tmp_path / "label-errors.csv").read_bytes() == (cleaned[1] / "label-errors.csv").read_bytes()


def test_a_page_of_images_shows_example_neighbours_and_slot(tmp_path):
    digits = load_data("digits")
    given, wrong = with_errors(digits.y_train, 60, 10)
    data = replace(digits, y_train=given)
    summary = clean_and_write(data, CleaningPlan(limit=SHOWN + 10, backbone="pixels"), out=tmp_path, command="c")
    lines = lines_of(tmp_path)
    assert len(lines) == summary.listed == SHOWN + 10
    assert len({int(line["example"]) for line in lines[:50]} & set(wrong)) >= 45
    page = pages.parse((tmp_path / "label-errors.html").read_text())
    cards = page.all("li", cls="suspect")
    assert len(cards) == SHOWN
    assert f"The first {SHOWN} are shown" in page.text
    first, row = cards[0], int(lines[0]["example"])
    pictures = first.all("img")
    assert len(pictures) == (4 if lines[0]["slots"] else 3)
    np.testing.assert_array_equal(pictures[0].pixels(), digits.x_train[row, :, :, 0])
    np.testing.assert_array_equal(pictures[1].pixels(), digits.x_train[int(lines[0]["same"]), :, :, 0])
    np.testing.assert_array_equal(pictures[2].pixels(), digits.x_train[int(lines[0]["other"]), :, :, 0])
    assert f"{lines[0]['given']} → {lines[0]['suggested']}" in first.text
    assert all(address.startswith(("data:", "#")) for address in pages.asked_for(page))


def test_a_network_is_trained_where_none_is_given():
    digits = load_data("digits")
    data = replace(digits, x_train=digits.x_train[:250], y_train=digits.y_train[:250])
    found = find_suspects(data, CleaningPlan(limit=3), model=None, progress=lambda _step, _share: None)
    assert len(found.evidence) == 3
    assert len(found.exemplars) == len(found.slot_labels)
    for slot, exemplar in enumerate(found.exemplars):
        assert exemplar not in {it.example for it in found.evidence}
        assert found.names[found.y[exemplar]] == found.slot_labels[slot]


def test_a_model_lends_features_and_slots_and_stays_as_it_is(rows, tmp_path):
    data, _, wrong = rows
    labelled = data.y_train >= 0
    x, y = data.x_train[labelled], data.y_train[labelled]
    order = np.array([2, 0, 1, 3])  # the model numbers the labels in its own way
    model, _ = fit(
        x, np.argsort(order)[y], config=TrainConfig(epochs=2, slots_per_class=3), class_names=[NAMES[i] for i in order]
    )
    before = {name: it.clone() for name, it in model.state_dict().items()}
    summary = clean_and_write(data, CleaningPlan(), out=tmp_path, command="", model=model, model_name="m")
    assert (summary.model, summary.backbone, summary.n_slots) == ("m", "of the model", model.head.n_slots)
    assert all((it == before[name]).all() for name, it in model.state_dict().items())
    lines = lines_of(tmp_path)
    listed = {int(line["example"]) for line in lines}
    assert len(listed & set(wrong)) >= 0.8 * min(len(listed), len(wrong))
    for line in lines:
        for slot in map(int, line["slots"].split()):
            assert model.class_name(int(model.head.labels[slot])) != line["given"]
    assert any(line["slots"] for line in lines)


def test_names_that_a_model_lacks_hold_back_any_slot(rows, tmp_path):
    data, _, _ = rows
    two = data.y_train == 0
    two |= data.y_train == 1
    model, _ = fit(
        data.x_train[two], data.y_train[two], config=TrainConfig(epochs=1, slots_per_class=2), class_names=NAMES[:2]
    )
    found = find_suspects(data, CleaningPlan(), model=model, progress=lambda _step, _share: None)
    assert set(found.slot_labels) == {"ant", "bee"}
    assert found.evidence


def test_at_most_half_is_listed(rows, tmp_path):
    summary = clean_and_write(rows[0], CleaningPlan(limit=10_000), out=tmp_path, command="")
    assert summary.listed == 497 // 2 > summary.estimated_errors


def test_clean_data_lists_little_and_an_empty_list_is_a_page(tmp_path):
    x, y = blobs(300, spread=0.02)
    data = Dataset("clean", x, y, x[:0], y[:0], NAMES, "")
    summary = clean_and_write(data, CleaningPlan(), out=tmp_path, command="")
    assert summary.listed <= 3
    page = pages.parse((tmp_path / "label-errors.html").read_text())
    assert ("No label of clean stands out" in page.text) == (summary.listed == 0)


def test_misuse_is_named(rows, tmp_path):
    data, _, _ = rows
    digits = load_data("digits")

    def clean(data=data, plan=None, **named):
        return clean_and_write(data, plan or CleaningPlan(), out=tmp_path, command="", **named)

    with pytest.raises(DataError, match=r"`data` must have at least 20 labelled examples in its test part, got 0. Try"):
        clean(plan=CleaningPlan(part="test"))
    with pytest.raises(UsageError, match=r"`limit` must be >= 1, got 0. Leave it out to list by the estimate."):
        CleaningPlan(limit=0)
    with pytest.raises(UsageError, match=r"`backbone` must be none for features, got 'cnn'. Change --backbone."):
        clean(plan=CleaningPlan(backbone="cnn"))
    with pytest.raises(UsageError, match=r"`backbone` must be a network such as cnn for images, got 'none'. Change"):
        clean(digits, CleaningPlan(backbone="none"))
    with pytest.raises(UsageError, match=r"`name` must be one of pixels, cnn, .*, got 'other'"):
        clean(digits, CleaningPlan(backbone="other"))
    model, _ = fit(data.x_train[:100], np.arange(100) % 2, config=TrainConfig(epochs=0, slots_per_class=1))
    with pytest.raises(UsageError, match=r"`backbone` must be left out with a model, got both. The model has its own."):
        clean(plan=CleaningPlan(backbone="none"), model=model)
    with pytest.raises(DataError, match=r"`x` must be float features of shape"):
        clean(digits, model=model)
    assert not list(tmp_path.iterdir())
