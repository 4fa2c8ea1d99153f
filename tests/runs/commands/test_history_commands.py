"""`slots log, diff, undo, relabel, merge, delete` as a user meets them: what they print, write and refuse."""

import json

import numpy as np
import pytest
from filelock import FileLock
from support.command import told
from support.nursery import begin
from support.small_models import new_animals, three_animals

from slots.model.slot_model import SlotModel
from slots.storage.generations import log
from slots.storage.store import read_state


def run_json(capsys, *arguments):
    return json.loads(told(capsys, *arguments, "--json").out)


@pytest.fixture
def folder(tmp_path):
    """Generation 0 with six slots, generation 1 with two clusters more."""
    model = three_animals()
    model.save(tmp_path / "m")
    model.update(new_animals())
    model.save(tmp_path / "m", keep_history=True)
    return tmp_path / "m"


@pytest.fixture
def archive(tmp_path):
    """Data near the first slots of the model."""
    x = three_animals().exemplar_features.float().flatten(0, 1).numpy()
    y = np.arange(len(x)) // 8
    np.savez(tmp_path / "x.npz", x_train=x, y_train=y, x_test=x[:8], y_test=y[:8])
    return tmp_path / "x.npz"


def labels(folder):
    model = SlotModel.load(folder)
    return [model.class_name(label) for label in model.head.labels.tolist()]


def test_log(folder, capsys):
    lines = run_json(capsys, "log", folder)["generations"]
    assert [(line["number"], line["what"], line["n_slots"], line["current"]) for line in lines] == [
        (0, "fit", 6, False),
        (1, "update", 8, True),
    ]
    assert lines[1]["slots_gained"] == 2
    assert lines[1]["n_clusters"] == 2
    assert lines[1]["when"].endswith("+00:00")
    printed = told(capsys, "log", folder).out.splitlines()
    assert len(printed) == 3
    assert "update" in printed[2]
    assert "8 (+2)" in printed[2]
    assert printed[2].rstrip().endswith("current")


def test_diff_of_an_update_is_proven(folder, archive, capsys):
    found = run_json(capsys, "diff", folder, "--data", archive, "--part", "train")
    assert (found["old"], found["new"], found["added"], found["proven"]) == (0, 1, [6, 7], True)
    assert (found["n_compared"], found["changed"]) == (48, [])
    printed = told(capsys, "diff", folder).out
    assert "Generation 0 to 1: 2 slots added, 0 gone, 0 relabelled." in printed
    assert "Proven: whatever input generation 0 matches, generation 1 answers the same." in printed
    assert "24 matched inputs, 0 answered otherwise" in printed
    assert told(capsys, "diff", folder, 0).out == told(capsys, "diff", folder, 0, 1).out == printed


def test_diff_lists_what_edits_changed(folder, archive, capsys):
    told(capsys, "relabel", folder, "--slots", "0, 3", "--label", "bird")
    printed = told(capsys, "diff", folder, "--data", archive).out
    assert "Slot 0: cat is now bird." in printed
    assert "Answers may have changed: old slots are not as they were (labels)." in printed
    assert "remembered 12: dog (slot 3) is now bird (slot 3)" in printed
    assert "data 0: cat (slot 0) is now bird (slot 0)" in printed
    assert "data 4" not in printed
    found = run_json(capsys, "diff", folder, "0", "2")
    assert found["relabelled"] == [[0, "cat", "bird"], [3, "dog", "bird"]]
    assert len(found["changed"]) == 8


def test_diff_of_two_folders(folder, tmp_path, capsys):
    other = SlotModel.load(folder, generation=0)
    other.save(tmp_path / "other")
    found = run_json(capsys, "diff", tmp_path / "other", folder)
    assert (found["added"], found["proven"]) == ([6, 7], True)


def test_long_lists_are_cut_on_the_terminal_only(folder, capsys):
    told(capsys, "merge", folder, "--from", "cat", "--from", "dog", "--from", "bird", "--into", "pet")
    printed = told(capsys, "diff", folder).out
    assert printed.count("remembered") == 20
    assert "... and 4 more; --json lists them." in printed
    assert len(run_json(capsys, "diff", folder)["changed"]) == 24


def test_undo_and_back_again(folder, capsys):
    entry = run_json(capsys, "undo", folder)
    assert (entry["number"], entry["content"], entry["n_slots"]) == (2, 0, 6)
    assert labels(folder) == ["cat", "cat", "dog", "dog", "bird", "bird"]
    assert told(capsys, "undo", folder, "--to", "1").out == "Generation 3 is generation 1 again: 8 slots.\n"
    assert len(labels(folder)) == 8
    assert "undo to generation 1" in " ".join(told(capsys, "log", folder).out.split())
    assert run_json(capsys, "diff", folder, "1", "3")["proven"]


def test_a_cluster_gets_its_name(folder, capsys):
    done = run_json(capsys, "relabel", folder, "--cluster", "cluster 3", "--label", "fish")
    assert (done["what"], done["generation"], done["slots"], done["label_after"]) == ("merge", 2, [6], "fish")
    assert labels(folder)[6:] == ["fish", "cluster 4"]
    assert SlotModel.load(folder).clusters == {4}
    printed = told(capsys, "relabel", folder, "--cluster", "cluster 4", "--label", "fish").out
    assert "1 slot of cluster 4 relabelled to fish. Is generation 3." in printed
    assert labels(folder)[6:] == ["fish", "fish"]


def test_merge_takes_several_labels(folder, capsys):
    done = run_json(capsys, "merge", folder, "--from", "cluster 3", "--from", "cluster 4", "--into", "dog")
    assert done["slots"] == [6, 7]
    assert done["n_in_passing"] == 0
    assert labels(folder)[6:] == ["dog", "dog"]


def test_delete_says_that_numbers_move(folder, capsys):
    printed = told(capsys, "delete", folder, "--slots", "1,0").out
    assert "2 slots of cat deleted. Is generation 2." in printed
    assert "The slots behind the deleted ones moved up" in printed
    assert "slot 0, example 0: cat is now" in printed
    assert labels(folder)[:2] == ["dog", "dog"]
    told(capsys, "undo", folder)
    assert labels(folder)[:2] == ["cat", "cat"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("relabel", "--slots", "0", "--label", "lynx"),
        ("relabel", "--cluster", "cluster 3", "--label", "fish"),
        ("merge", "--from", "cat", "--into", "dog"),
        ("delete", "--slots", "0"),
    ],
)
def test_a_dry_run_says_the_same_and_changes_nothing(folder, arguments, capsys):
    before = read_state(folder).path
    dry = run_json(capsys, arguments[0], folder, *arguments[1:], "--dry-run")
    assert "Would be generation 2." in told(capsys, arguments[0], folder, *arguments[1:], "--dry-run").out
    assert read_state(folder).path == before
    done = run_json(capsys, arguments[0], folder, *arguments[1:])
    assert {**dry, "dry_run": False} == done
    assert read_state(folder).path != before


def test_what_changes_in_passing_is_said_first(tmp_path, capsys):
    from support.small_models import with_overlap

    with_overlap().save(tmp_path / "m")
    lines = told(capsys, "relabel", tmp_path / "m", "--slots", "6", "--label", "dog").out.splitlines()
    assert lines[1].startswith("Beware: ")
    assert lines[1].endswith("remembered examples of other slots changed in passing.")
    assert lines[3].startswith(("slot 0", "slot 1"))


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["log", "nowhere"], 4, "must be a model folder"),
        (["diff", "nowhere"], 4, "must be a model folder"),
        (["diff", "M", "7"], 4, "`generation` must be one that"),
        (["diff", "M", "one"], 2, "A generation must be a number, got 'one'."),
        (["diff", "M", "0", "-1"], 2, "-1"),
        (["diff", "M", "--data", "nowhere.npz"], 3, "nowhere.npz"),
        (["undo", "nowhere"], 4, "must be a model folder"),
        (["undo", "M", "--to", "7"], 2, "`to` must be a generation that the folder keeps, got 7. It keeps 0, 1."),
        (["undo", "M", "--to", "1"], 2, "`to` must be another generation than the current one"),
        (["relabel", "M", "--label", "cat"], 2, "Give --slots or --cluster"),
        (["relabel", "M", "--label", "cat", "--slots", "1", "--cluster", "dog"], 2, "Give --slots or --cluster"),
        (["relabel", "M", "--slots", "1"], 2, "Missing option '--label'"),
        (["relabel", "M", "--slots", "1;2", "--label", "cat"], 2, "--slots must be numbers with commas between"),
        (["relabel", "M", "--slots", "99", "--label", "cat"], 2, "`slots` must be numbers from 0 to 7, got [99]."),
        (["relabel", "M", "--slots", "1", "--label", ""], 2, "`name` must not be empty"),
        (
            ["relabel", "M", "--cluster", "cluster 9", "--label", "cat"],
            2,
            "must be a label of the model, got 'cluster 9'",
        ),
        (["merge", "M", "--into", "cat"], 2, "Missing option '--from'"),
        (["merge", "M", "--from", "cow", "--into", "cat"], 2, "must be a label of the model, got 'cow'"),
        (["delete", "M"], 2, "Missing option '--slots'"),
        (["delete", "M", "--slots", "0,1,2,3,4,5,6,7"], 2, "`slots` must leave at least one slot, got all 8."),
    ],
)
def test_a_wrong_call_gives_one_line_its_status_and_changes_nothing(
    arguments, status, says, folder, capsys, monkeypatch
):
    monkeypatch.chdir(folder.parent)
    before = read_state(folder).path
    printed = told(capsys, *[str(folder) if word == "M" else word for word in arguments], status=status)
    assert says in printed.err
    assert printed.err.count("\n") == 1
    assert printed.out == ""
    assert read_state(folder).path == before


def test_a_single_generation_has_nothing_to_compare_with(tmp_path, capsys):
    three_animals().save(tmp_path / "m")
    assert "must keep two generations to compare" in told(capsys, "diff", tmp_path / "m", status=2).err
    assert "keeps none" in told(capsys, "undo", tmp_path / "m", status=2).err


def test_an_undo_can_be_repeated(folder, capsys):
    said = told(capsys, "undo", folder).out
    assert said.endswith("to repeat this one: slots undo --to 0 --if-needed.\n")
    before = (folder / "slots.json").read_bytes()
    for _ in range(2):
        again = told(capsys, "undo", folder, "--to", "0", "--if-needed").out
        assert again == "Generation 2 is generation 0 again: 6 slots.\n"
    assert (folder / "slots.json").read_bytes() == before
    assert (
        told(capsys, "undo", folder, "--to", "1", "--if-needed").out == "Generation 3 is generation 1 again: 8 slots.\n"
    )
    assert "must come with `to`" in told(capsys, "undo", folder, "--if-needed", status=2).err
    assert (
        "must be a generation that the folder keeps"
        in told(capsys, "undo", folder, "--to", "9", "--if-needed", status=2).err
    )


@pytest.mark.slow
def test_writers_wait_and_every_acknowledged_edit_is_in(folder):
    edits = [["relabel", folder, "--slots", str(i % 6), "--label", f"by {i}", "--wait", "300"] for i in range(6)]
    running = [begin(it) for it in edits]
    for it in running:
        _, told = it.communicate(timeout=300)
        assert it.returncode == 0, told
    assert labels(folder)[:6] == [f"by {i}" for i in range(6)]
    assert [line.what for line in log(folder)] == ["fit", "update"] + ["relabel"] * 6


def test_a_writer_that_waits_in_vain_says_for_how_long(folder, capsys):
    with FileLock(folder / ".lock"):
        for command in (["relabel", folder, "--slots", "0", "--label", "x"], ["undo", folder]):
            printed = told(capsys, *command, "--wait", "0.2", status=5)
            assert "another process is writing to it for 0.2 seconds" in printed.err
        told(capsys, "relabel", folder, "--slots", "0", "--label", "x", "--dry-run")
    assert len(log(folder)) == 2


def test_prune_frees_what_no_rule_keeps(folder, capsys):
    for name in ("a", "b", "c"):
        told(capsys, "relabel", folder, "--slots", "0", "--label", name)
    freed = run_json(capsys, "prune", folder, "--keep", "1", "--pin", "2", "--dry-run")
    assert (freed["removed"], freed["kept"], freed["dry_run"]) == ([1, 3], [0, 2, 4], True)
    printed = told(capsys, "prune", folder, "--keep", "1", "--pin", "2").out
    assert printed == f"2 generations removed, 3 kept, {freed['freed_bytes'] / 1e6:,.1f} MB freed.\nPinned: 2.\n"
    assert freed["freed_bytes"] > 0
    lines = told(capsys, "log", folder).out.splitlines()
    assert len(lines) == 6
    assert sum("not kept" in line for line in lines) == 2
    assert "must be a generation that the folder keeps" in told(capsys, "undo", folder, "--to", "3", status=2).err
    assert "got neither" in told(capsys, "prune", folder, status=2).err
    assert labels(folder)[0] == "c"
