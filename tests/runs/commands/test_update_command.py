"""The query list, its page, and ``slots update`` from the list to the labelled slots."""

import csv
import io
import json
import re

import numpy as np
import pytest
from support import nursery
from support.pages import asked_for, parse

import backbones
from protocols.app.history import edit_and_save
from protocols.app.queries import queries_csv, read_labels
from protocols.app.update import UpdatePlan, update_and_save
from protocols.commands import main
from protocols.data.dataset import check_sum, only_classes
from protocols.data.loading import load_data
from protocols.pages.queries_page import queries_page
from protocols.summaries.update import COLUMNS
from slots.closing.config import ClosingConfig
from slots.errors import DataError, UsageError
from slots.head.prediction import changed_matched
from slots.model.editing import relabel
from slots.model.slot_model import SlotModel
from slots.storage.generations import log
from slots.training.config import TrainConfig
from slots.training.fitting import fit

CONFIG = TrainConfig(epochs=2, batch_size=100, slots_per_class=4, closing=ClosingConfig(reach=0.8))


def rows(data):
    """Feature rows of images."""
    return data.reshape(len(data), -1).astype(np.float32)


@pytest.fixture(scope="module")
def digits():
    return load_data("digits")


@pytest.fixture(scope="module")
def folder(digits, tmp_path_factory):
    """A model of the digits 0 to 7 as feature rows, and the archive that holds all ten."""
    root = tmp_path_factory.mktemp("update")
    known = only_classes(digits, "0-7")
    model, _ = fit(rows(known.x_train), known.y_train, config=CONFIG, class_names=digits.class_names)
    model.save(root / "model")
    np.savez(
        root / "new.npz",
        x_train=rows(digits.x_train[:600]),
        y_train=digits.y_train[:600],
        x_test=rows(digits.x_test),
        y_test=digits.y_test,
        class_names=np.array(digits.class_names),
    )
    return root


@pytest.fixture
def model(folder, tmp_path):
    """The model, with a folder of its own to be saved to."""
    loaded = SlotModel.load(folder / "model")
    loaded.save(tmp_path / "model")
    return loaded


def run(*arguments, status=0):
    done = nursery.run(arguments)
    assert done.returncode == status, done.stderr
    return done


def test_the_list_is_filled_in_and_read_again(model, folder, tmp_path):
    x = load_data(folder / "new.npz").x_train
    proposal = model.propose(x, budget=5)
    table = list(csv.DictReader(io.StringIO(queries_csv(model, x, proposal))))
    assert tuple(table[0]) == COLUMNS
    assert [int(row["example"]) for row in table] == proposal.queries.tolist()
    assert [int(row["covers"]) for row in table] == proposal.gains.tolist()
    assert table[0]["check"] == check_sum(x, int(table[0]["example"]))
    table[0]["label"], table[3]["label"] = " eight ", "1, or 7"
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(table)
    labels, unlabelled = read_labels(tmp_path / "labels.csv", x)
    assert labels == {int(proposal.queries[0]): "eight", int(proposal.queries[3]): "1, or 7"}
    assert sorted(unlabelled) == sorted(proposal.queries[[1, 2, 4]].tolist())


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a,b\n1,2\n", "must have the columns example and label, got a, b"),
        ("example,label\nx,3\n", "must be a row of the data, 0 to 599, got 'x'"),
        ("example,label\n600,3\n", "must be a row of the data, 0 to 599, got '600'"),
        ("example,label\n4,3\n4,5\n", "must name each example once, got 4 again in line 3"),
        ("example,label,check\n4,3,00000000\n", r"must be for this data, but example 4 \(line 2\) is another one"),
    ],
)
def test_a_list_that_does_not_fit_is_refused(folder, tmp_path, text, sentence):
    (tmp_path / "l.csv").write_text(text)
    with pytest.raises(DataError, match=sentence):
        read_labels(tmp_path / "l.csv", load_data(folder / "new.npz").x_train)


def test_a_list_that_is_not_there_is_refused(folder, tmp_path):
    with pytest.raises(DataError, match="must be a readable CSV file"):
        read_labels(tmp_path / "none.csv", load_data(folder / "new.npz").x_train)


def test_the_page_shows_each_query_and_asks_nobody(digits):
    known = only_classes(digits, "0-7")
    backbone = backbones.build("pixels", input_shape=(1, 8, 8))
    images, _ = fit(known.x_train, known.y_train, backbone=backbone, config=CONFIG, class_names=("<b>", *"1234567"))
    proposal = images.propose(digits.x_train[:300], budget=6)
    text = queries_page(images, digits.x_train[:300], proposal, command="slots update a&b")
    assert all(address.startswith("data:") for address in asked_for(parse(text)))
    assert text.count("data:image/png;base64,") == 6
    assert [int(n) for n in re.findall(r'data-example="(\d+)"', text)] == proposal.queries.tolist()
    assert "slots update a&amp;b" in text
    assert "&lt;b&gt;" in text
    assert "<b>" not in text.split("<main")[1]


def test_an_update_answers_new_classes_and_changes_no_matched_answer(model, folder, tmp_path):
    data = load_data(folder / "new.npz")
    before = model.predict(data.x_test)
    proposal = model.propose(data.x_train, budget=30)
    table = [("example", "label"), *((int(i), data.class_names[data.y_train[i]]) for i in proposal.queries)]
    (tmp_path / "l.csv").write_text("\n".join(",".join(map(str, row)) for row in table))
    plan = UpdatePlan(part="train", labels=tmp_path / "l.csv", source="new.npz")
    done = update_and_save(model, data, plan, folder=tmp_path / "model", command="slots update")
    after = SlotModel.load(tmp_path / "model").predict(data.x_test)
    assert done.changed_matched_answers == 0
    assert len(changed_matched(before, after)) == 0
    assert done.labels_used == 30
    assert done.clusters_added == 0
    new = data.y_test >= 8
    assert (before.labels[new] == data.y_test[new]).mean() == 0
    assert (after.labels[new] == data.y_test[new]).mean() > 0.4
    assert done.held_out.before == pytest.approx((before.labels == data.y_test).mean())
    assert done.held_out.after == pytest.approx((after.labels == data.y_test).mean())
    assert done.held_out.control == done.held_out.before
    assert done.stream.control == pytest.approx(done.stream.before + newly_right(data, proposal) / 600)
    assert done.never_queried.n == 570
    assert SlotModel.load(tmp_path / "model").history[-1].figures["slots_added"] == done.slots_added


def test_each_new_image_goes_through_the_backbone_once(digits, tmp_path, monkeypatch):
    """Each of the other part twice: what the slots say of it before and after is found from the images."""
    backbone = backbones.build("pixels", input_shape=(1, 8, 8))
    images, _ = fit(*known_digits(digits), backbone=backbone, config=CONFIG, class_names=digits.class_names)
    images.save(tmp_path / "model")
    rows = []
    backbone.register_forward_hook(lambda _net, inputs, _output: rows.append(len(inputs[0])))
    plan = UpdatePlan(part="train", budget=20)
    done = update_and_save(images, digits, plan, folder=tmp_path / "model", command="slots update")
    assert done.slots_added == 20
    assert sum(rows) == len(digits.x_train) + 2 * len(digits.x_test)
    truth, answers = digits.y_train, images.predict(digits.x_train).labels
    assert done.stream.after == pytest.approx((answers == truth).mean())

    monkeypatch.setattr("slots.features.source.KEPT_BYTES", 0)
    again, _ = fit(*known_digits(digits), backbone=backbone, config=CONFIG, class_names=digits.class_names)
    again.save(tmp_path / "again")
    same = update_and_save(again, digits, plan, folder=tmp_path / "again", command="slots update")
    assert (same.stream, same.held_out) == (done.stream, done.held_out)


def known_digits(digits):
    known = only_classes(digits, "0-7")
    return known.x_train, known.y_train


def newly_right(data, proposal):
    """Queries that the old model answered wrongly."""
    asked = proposal.queries
    return int((proposal.prediction.labels[asked] != data.y_train[asked]).sum())


def test_changed_answers_are_found(model, folder):
    x = load_data(folder / "new.npz").x_test
    before = model.predict(x)
    row = int(np.flatnonzero(before.matched)[0])
    labels = before.labels.copy()
    labels[row] += 1
    assert changed_matched(before, type(before)(**{**vars(before), "labels": labels})).tolist() == [row]


def test_a_dry_run_asks_and_changes_nothing(folder):
    before = (folder / "model" / "slots.json").read_bytes()
    done = run("update", folder / "model", "--data", folder / "new.npz", "--budget", 7, "--dry-run", "--json")
    document = json.loads(done.stdout)
    wanted = ["unmatched", "queries", "labels_used", "slots_added", "clusters_added", "generation"]
    assert all(key in document for key in [*wanted, "changed_matched_answers", "elapsed_s"])
    assert document["queries"] == 7
    assert document["slots_added"] == document["generation"] == 0
    assert (folder / "model" / "slots.json").read_bytes() == before
    assert len((folder / "model" / "queries.csv").read_text().splitlines()) == 8
    assert (folder / "model" / "queries.html").read_text().startswith("<!doctype html>")


def test_without_labels_the_proposals_become_clusters_that_leave_guesses_alone(model, folder, tmp_path):
    data = load_data(folder / "new.npz")
    before = model.predict(data.x_test)
    done = update_and_save(
        model, data, UpdatePlan(part="train", budget=6), folder=tmp_path / "model", command="slots update"
    )
    assert done.clusters_added == done.slots_added == 6
    again = SlotModel.load(tmp_path / "model")
    assert again.clusters == frozenset(range(10, 16))
    assert again.class_names[10:] == tuple(f"cluster {i}" for i in range(10, 16))
    after = again.predict(data.x_test)
    unmatched = ~after.matched
    assert unmatched.any()
    assert np.array_equal(after.labels[unmatched], before.labels[unmatched])


def test_budget_and_labels_together_are_refused(model, folder, tmp_path):
    plan = UpdatePlan(part="train", budget=3, labels=tmp_path / "l.csv")
    with pytest.raises(UsageError, match="`budget` must be left out with labels, got both"):
        update_and_save(model, load_data(folder / "new.npz"), plan, folder=tmp_path / "m", command="")


def test_only_classes_takes_names_and_ranges(digits):
    some = only_classes(digits, "1, 3-5")
    assert np.unique(some.y_train).tolist() == [1, 3, 4, 5]
    assert some.class_names == digits.class_names
    assert some.digest != digits.digest
    with pytest.raises(UsageError, match="must name classes of the data, got 'x'"):
        only_classes(digits, "x")


def test_a_fit_does_not_throw_away_what_was_learned(model, folder, tmp_path):
    data = load_data(folder / "new.npz")
    model.update(data.x_train, {0: "0"}, proposal=model.propose(data.x_train, budget=1))
    model.save(tmp_path / "model", keep_history=True)
    before = (tmp_path / "model" / "slots.json").read_bytes()
    done = run("fit", "--data", folder / "new.npz", "--out", tmp_path / "model", status=5)
    assert "must not hold later generations than a fit, got 1 of them" in done.stderr
    assert (tmp_path / "model" / "slots.json").read_bytes() == before


def test_labels_are_spread_when_asked_to(folder, model, tmp_path):
    target = tmp_path / "model"
    run("update", target, "--data", folder / "new.npz", "--budget", 20, "--dry-run")
    truth, queries = load_data(folder / "new.npz").y_train, target / "queries.csv"
    table = list(csv.DictReader(queries.read_text().splitlines()))
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows({**row, "label": str(truth[int(row["example"])])} for row in table)
    found = json.loads(
        run(
            "update", target, "--data", folder / "new.npz", "--labels", tmp_path / "labels.csv", "--spread", "--json"
        ).stdout
    )
    assert found["labels_used"] == len(table)
    assert found["changed_matched_answers"] == 0
    assert found["held_out"]["after"] > found["held_out"]["before"] + 0.1

    refused = run("update", target, "--data", folder / "new.npz", "--spread", status=2)
    assert "--spread must come with --labels" in refused.stderr


def test_an_update_that_was_overtaken_is_planned_again_and_kept(model, folder, tmp_path, monkeypatch, capsys):
    target, planned = tmp_path / "model", SlotModel.update
    n_slots = model.head.n_slots

    def overtaken(self, *arguments, **options):
        done = planned(self, *arguments, **options)
        monkeypatch.setattr(SlotModel, "update", planned)
        edit_and_save(target, lambda it: relabel(it, [0], "zero"))  # another writer, between planning and saving
        return done

    monkeypatch.setattr(SlotModel, "update", overtaken)
    with pytest.raises(SystemExit) as end:
        main(["update", str(target), "--data", str(folder / "new.npz"), "--json"])
    printed = capsys.readouterr()
    assert end.value.code == 0, printed.err
    assert "planning again" in printed.err
    assert json.loads(printed.out)["generation"] == 2
    assert [line.what for line in log(target)][1:] == ["relabel", "update"]
    after = SlotModel.load(target)
    assert after.head.n_slots > n_slots
    assert after.class_name(int(after.head.labels[0])) == "zero"
