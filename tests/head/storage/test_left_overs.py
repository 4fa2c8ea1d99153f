"""Temporary files of killed writers: the next writer removes them, and never those of a living one."""

import os
import time

import torch

from slots.storage.atomic import temporary, write_file
from slots.storage.store import write_state


def left(path, *, age):
    path = temporary(path)
    path.write_bytes(b"half")
    os.utime(path, (time.time() - age,) * 2)
    return path


def test_the_next_writer_of_a_file_removes_what_killed_ones_left(tmp_path):
    left(tmp_path / "a.csv", age=700)
    young = left(tmp_path / "a.csv", age=5)
    other, named = left(tmp_path / "b.csv", age=700), tmp_path / ".a.csv.notes.tmp"
    named.write_text("mine")
    os.utime(named, (0, 0))
    write_file(tmp_path / "a.csv", b"whole")
    assert sorted(tmp_path.iterdir()) == sorted([tmp_path / "a.csv", young, other, named])


def test_the_next_writer_of_a_model_removes_what_killed_ones_left(tmp_path):
    write_state(tmp_path / "m", header={}, tensors={"a": {"w": torch.ones(2)}})
    old = [left(tmp_path / "m" / name, age=700) for name in ("queries.csv", "report.html")]
    young = left(tmp_path / "m" / "queries.html", age=5)
    pointer = left(tmp_path / "m" / "slots.json", age=0)  # the lock says that nobody is writing it
    write_state(tmp_path / "m", header={}, tensors={"a": {"w": torch.ones(2)}})
    assert young.exists()
    assert not any(path.exists() for path in (*old, pointer))
