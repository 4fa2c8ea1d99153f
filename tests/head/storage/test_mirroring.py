"""A folder that follows another is a whole model at any moment, and takes nothing that is damaged."""

import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from slots.errors import ModelError, StorageError
from slots.storage.mirroring import adopt_state, current_files
from slots.storage.states import HEADER, POINTER, read_pointer
from slots.storage.store import read_state, write_state


class Reader:
    """Reads a folder's files, and remembers which."""

    def __init__(self, folder, change=lambda name, data: data):
        self.folder, self.change, self.asked = folder, change, []

    def __call__(self, name, most):
        self.asked.append(name)
        return self.change(name, (self.folder / name).read_bytes())[: most + 1]


def write(folder, head=1.0, body=2.0, *, history=()):
    tensors = {"head": {"w": torch.full((2, 3), head)}, "backbone": {"w": torch.full((5,), body)}}
    return write_state(folder, header={"history": list(history)}, tensors=tensors, keep_history=bool(history))


def everything(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def without_lock(files):
    return {name: data for name, data in files.items() if name != ".lock"}


@pytest.fixture
def leader(tmp_path):
    write(tmp_path / "leader")
    return tmp_path / "leader"


def test_a_copy_is_the_current_state_byte_for_byte(leader, tmp_path):
    assert adopt_state(tmp_path / "copy", Reader(leader))
    assert without_lock(everything(tmp_path / "copy")) == without_lock(everything(leader))
    assert torch.equal(read_state(tmp_path / "copy").tensors["head"]["w"], torch.ones(2, 3))


def test_the_same_state_is_not_copied_again(leader, tmp_path):
    adopt_state(tmp_path / "copy", Reader(leader))
    again = Reader(leader)
    assert not adopt_state(tmp_path / "copy", again)
    assert again.asked == [POINTER]


def test_only_what_changed_is_asked_for(leader, tmp_path):
    adopt_state(tmp_path / "copy", Reader(leader))
    write(leader, head=7.0)
    reader = Reader(leader)
    assert adopt_state(tmp_path / "copy", reader)
    state = read_pointer(leader).current
    assert reader.asked == [POINTER, f"states/{state}/{HEADER}", f"states/{state}/head.safetensors"]
    assert read_state(tmp_path / "copy").tensors["head"]["w"].eq(7).all()
    assert [p.name for p in (tmp_path / "copy" / "states").iterdir()] == [state]


def test_an_older_history_is_left_behind(leader, tmp_path):
    write(leader, history=({"number": 0},))
    write(leader, head=3.0, history=({"number": 0}, {"number": 1}))
    adopt_state(tmp_path / "copy", Reader(leader))
    assert read_pointer(tmp_path / "copy").generations == [read_pointer(leader).current]


@pytest.mark.parametrize("file", [POINTER, HEADER, "head.safetensors"])
@settings(max_examples=30)
@given(data=st.data())
def test_what_is_damaged_on_the_way_is_refused_and_nothing_changes(file, data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("damaged")
    write(folder / "leader")
    adopt_state(folder / "copy", Reader(folder / "leader"))
    before = everything(folder / "copy")
    write(folder / "leader", head=9.0)
    cut = data.draw(st.integers(0, 200), label="cut")

    def change(name, content):
        if not name.endswith(file):
            return content
        at = cut % len(content)
        return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]

    changed = Reader(folder / "leader", change)
    try:
        adopt_state(folder / "copy", changed)
    except (ModelError, FileNotFoundError):  # a pointer to a state that is not there
        assert everything(folder / "copy") == before
    else:  # a changed digit of a name that is not the current one, a space in the pointer
        assert file == POINTER
    shutil.rmtree(folder)


def test_a_pointer_cannot_lead_out_of_the_folder(leader, tmp_path):
    for name in ("../../etc", "000001-1234567/", "000001-12345678/../x"):
        raw = (leader / POINTER).read_bytes().replace(read_pointer(leader).current.encode(), name.encode())
        with pytest.raises(ModelError, match="does not name its states"):
            adopt_state(tmp_path / "copy", Reader(leader, lambda _name, _data, raw=raw: raw))
    assert not (tmp_path / "copy").exists()


def test_a_damaged_copy_is_made_anew(leader, tmp_path):
    adopt_state(tmp_path / "copy", Reader(leader))
    (tmp_path / "copy" / POINTER).write_bytes(b"{")
    assert adopt_state(tmp_path / "copy", Reader(leader))
    assert without_lock(everything(tmp_path / "copy")) == without_lock(everything(leader))


def test_a_file_damaged_here_is_asked_for_again(leader, tmp_path):
    adopt_state(tmp_path / "copy", Reader(leader))
    body = tmp_path / "copy" / "states" / read_pointer(leader).current / "backbone.safetensors"
    body.write_bytes(body.read_bytes()[:-1] + b"\x00")
    write(leader, head=4.0)
    assert adopt_state(tmp_path / "copy", Reader(leader))
    assert read_state(tmp_path / "copy").tensors["backbone"]["w"].eq(2).all()


def test_a_full_disk_leaves_the_state_that_was_there(leader, tmp_path, monkeypatch):
    adopt_state(tmp_path / "copy", Reader(leader))
    write(leader, head=4.0)

    def refuse(path, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("slots.storage.placing.write_synced", refuse)
    before = everything(tmp_path / "copy")
    with pytest.raises(StorageError):
        adopt_state(tmp_path / "copy", Reader(leader))
    assert everything(tmp_path / "copy") == before


def test_files_to_publish_are_those_of_the_current_state_pointer_last(leader, tmp_path):
    write(leader, history=({"number": 0},))
    found = current_files(leader)
    assert list(found.files)[-1] == POINTER
    for name, data in found.files.items():
        (tmp_path / "bucket" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "bucket" / name).write_bytes(data)
    assert read_pointer(tmp_path / "bucket").generations == [found.state]
    assert read_state(tmp_path / "bucket").tensors["head"]["w"].eq(1).all()


def test_damaged_files_are_not_published(leader):
    path = leader / "states" / read_pointer(leader).current / "head.safetensors"
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(ModelError, match="damaged"):
        current_files(leader)
