"""Which generations go, what stays of them, and the disk that is free afterwards."""

from datetime import UTC, datetime, timedelta

import pytest
import torch

from slots.errors import ModelError, UsageError
from slots.storage import store
from slots.storage.generations import log, undo
from slots.storage.placing import PINS
from slots.storage.pruning import prune
from slots.storage.store import read_headers, read_state, write_state


@pytest.fixture
def folder(tmp_path):
    """Generations 0 to 5, made 50, 40, ..., 0 days ago, with a shared backbone of 4 kB and a head of 400 bytes each."""
    lines = []
    for n in range(6):
        when = (datetime.now(UTC) - timedelta(days=50 - 10 * n)).isoformat(timespec="seconds")
        lines.append({"number": n, "what": "update" if n else "fit", "n_slots": 1, "figures": {"when": when}})
        tensors = {
            "backbone": {"w": torch.ones(1000)},
            "head": {"w": torch.full((100,), float(n)), "labels": torch.ones(1)},
        }
        write_state(tmp_path / "m", header={"history": lines[:]}, tensors=tensors, keep_history=True)
    return tmp_path / "m"


def kept(folder):
    return [entry.number for entry in log(folder) if entry.kept]


def disk(folder):
    """Bytes of all files below ``states``, each counted once however many names it has."""
    found = {path.stat().st_ino: path.stat().st_size for path in (folder / "states").rglob("*") if path.is_file()}
    return sum(found.values())


@pytest.mark.parametrize(
    ("rules", "stays"),
    [
        ({"keep": 1}, [0, 5]),
        ({"keep": 3}, [0, 3, 4, 5]),
        ({"keep": 99}, [0, 1, 2, 3, 4, 5]),
        ({"keep_days": 15}, [0, 4, 5]),
        ({"keep_days": 0}, [0, 5]),
        ({"keep": 2, "keep_days": 25}, [0, 3, 4, 5]),
        ({"keep": 1, "pin": [2]}, [0, 2, 5]),
    ],
)
def test_what_stays(folder, rules, stays):
    before, newest = disk(folder), read_state(folder).tensors
    told = prune(folder, dry_run=True, **rules)
    assert (kept(folder), disk(folder)) == ([0, 1, 2, 3, 4, 5], before)
    assert not (folder / PINS).exists()
    done = prune(folder, **rules)
    assert done == told
    assert kept(folder) == stays == list(done.kept)
    assert done.removed == tuple(n for n in range(6) if n not in stays)
    assert before - disk(folder) == done.freed_bytes
    assert done.freed_bytes < 4000 * len(done.removed) or not done.removed  # the backbone is shared
    assert [(line.number, line.what) for line in log(folder)] == [(0, "fit"), *((n, "update") for n in range(1, 6))]
    assert torch.equal(read_state(folder).tensors["head"]["w"], newest["head"]["w"])
    assert [len(header["history"]) - 1 for header in read_headers(folder)] == stays
    assert undo(folder, 0).number == 6


def test_pins_last_until_they_are_taken_away(folder):
    assert prune(folder, pin=[1, 3]).removed == ()
    assert prune(folder, keep=1).kept == (0, 1, 3, 5)
    assert prune(folder, keep=1, unpin=[3]).kept == (0, 1, 5)
    assert prune(folder, keep=1, unpin=[1]).kept == (0, 5)
    write_state(folder, header={"history": []}, tensors={})  # a new fit: its numbers begin again
    assert not (folder / PINS).exists()


def test_what_is_refused(folder):
    for rules, says in [
        ({}, "`keep` or `keep_days` must say what stays, got neither"),
        ({"keep": 0}, "`keep` must be >= 1"),
        ({"keep_days": float("nan")}, "`keep_days` from 0 to 1000000"),
        ({"pin": [9]}, "`pin` must be generations that the folder keeps, got 9"),
    ]:
        with pytest.raises(UsageError, match=says):
            prune(folder, **rules)
    (folder / PINS).write_text('{"pinned": 3}')
    with pytest.raises(ModelError, match="must list the pinned generations"):
        prune(folder, keep=1)
    assert kept(folder) == [0, 1, 2, 3, 4, 5]


def test_a_prune_that_is_killed_is_finished_by_the_next_writer(folder, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(store, "sweep", lambda root, keep: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            prune(folder, keep=1)
    assert kept(folder) == [0, 5]
    assert len(list((folder / "states").iterdir())) == 6
    undo(folder, 0)
    assert len(list((folder / "states").iterdir())) == 3
