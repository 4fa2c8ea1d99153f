"""Links, pipes and devices in a model folder are refused in one sentence: nothing outside is read, nothing hangs."""

import os
import shutil
import signal

import pytest
import torch

from slots.errors import ModelError, SlotsError
from slots.storage.generations import log, undo
from slots.storage.store import check_target, read_headers, read_state, write_state


@pytest.fixture(autouse=True)
def _nothing_waits():
    """A pipe that is opened waits for ever: an alarm ends that as an error."""
    signal.alarm(60)
    yield
    signal.alarm(0)


def header(n):
    lines = [{"number": i, "what": "fit" if i == 0 else "update", "n_slots": 1, "figures": {}} for i in range(n + 1)]
    return {"history": lines, "class_names": ["cat"], "clusters": []}


def write(folder, n):
    return write_state(folder, header=header(n), tensors={"head": {"w": torch.ones(1 + n)}}, keep_history=True)


@pytest.fixture
def model(tmp_path):
    write(tmp_path / "model", 0)
    write(tmp_path / "model", 1)
    return tmp_path / "model"


def everything(folder):
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


def parts(folder):
    """Every file and folder of a model but itself and its lock."""
    state = read_state(folder).path
    return [folder / "slots.json", folder / "states", state, *sorted(state.iterdir())]


USES = {
    "read_state": read_state,
    "read_headers": lambda folder: (read_headers(folder), read_state(folder)),
    "log": lambda folder: (log(folder), read_state(folder)),
    "undo": lambda folder: (read_state(folder), undo(folder)),
    "write_state": lambda folder: (read_state(folder), write(folder, 2)),
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("place", range(5))
def test_a_link_is_refused_whatever_it_leads_to(model, tmp_path, use, place):
    part = parts(model)[place]
    part.rename(tmp_path / "elsewhere")  # the very content, so that only the link is wrong
    part.symlink_to(tmp_path / "elsewhere")
    before = everything(tmp_path)
    with pytest.raises(ModelError, match=r"must be a plain (file|folder) of the model, got a symbolic link\."):
        USES[use](model)
    assert everything(tmp_path) == before


@pytest.mark.parametrize("use", ["read_state", "read_headers", "log"])
@pytest.mark.parametrize("place", [0, 3, 4])
def test_a_pipe_neither_hangs_nor_passes(model, use, place):
    part = parts(model)[place]
    part.unlink()
    os.mkfifo(part)
    with pytest.raises(ModelError, match=r"must be a plain file of the model, got a special file\."):
        USES[use](model)


@pytest.mark.parametrize("place", [0, 3, 4])
def test_an_endless_device_is_not_read(model, place):
    part = parts(model)[place]
    part.unlink()
    part.symlink_to("/dev/zero")
    with pytest.raises(ModelError, match="got a symbolic link"):
        read_state(model)


def test_a_link_for_the_states_cannot_remove_another_models_history(model, tmp_path):
    write_state(tmp_path / "other", header=header(0), tensors={"head": {"w": torch.zeros(5)}})
    shutil.rmtree(model / "states")
    (model / "states").symlink_to(tmp_path / "other" / "states")
    other = everything(tmp_path / "other")
    with pytest.raises(ModelError, match="got a symbolic link"):
        write_state(model, header=header(0), tensors={"head": {"w": torch.ones(1)}})
    with pytest.raises(ModelError, match="got a symbolic link"):
        check_target(model)
    assert everything(tmp_path / "other") == other


def test_a_link_for_the_lock_is_left_alone(model, tmp_path):
    diary = tmp_path / "diary.txt"
    diary.write_text("not a lock")
    (model / ".lock").unlink()
    (model / ".lock").symlink_to(diary)
    with pytest.raises(ModelError, match="got a symbolic link"):
        write(model, 2)
    assert diary.read_text() == "not a lock"
    (model / ".lock").unlink()
    os.mkfifo(model / ".lock")
    with pytest.raises(ModelError, match="got a special file"):
        write(model, 2)


def test_a_dangling_link_is_no_empty_folder(model):
    (model / "slots.json").unlink()
    (model / "slots.json").symlink_to("nowhere")
    for use in (read_state, check_target, lambda folder: write(folder, 0)):
        with pytest.raises(SlotsError, match="got a symbolic link"):
            use(model)


def test_a_model_may_itself_be_reached_by_a_link(model, tmp_path):
    (tmp_path / "short").symlink_to(model)
    assert len(read_state(tmp_path / "short").tensors["head"]["w"]) == 2
    write(tmp_path / "short", 2)
    assert len(read_state(model).tensors["head"]["w"]) == 3


def test_a_file_that_is_too_large_is_not_read_whole(model):
    with (model / "slots.json").open("r+b") as file:
        file.truncate(1 << 40)  # a hole: no block of the disk is used
    with pytest.raises(ModelError, match=r"must have at most 67108864 bytes, got 1099511627776"):
        read_state(model)
