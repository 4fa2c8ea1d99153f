"""A model folder is always whole, says clearly what is wrong with it, and never harms what it does not own."""

import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import support.kill
import torch
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st
from support.nursery import run

from slots.errors import ModelError, StorageError, UsageError
from slots.storage import states as states_module
from slots.storage.atomic import write_file
from slots.storage.store import check_target, read_headers, read_state, restore_state, write_state

HEADER = {"classes": ["cat", "dog"], "rate": 0.125, "nothing": None}


def tensors(fill=1.0):
    weights = torch.full((3, 4), fill)
    return {
        "head": {"weights": weights, "labels": torch.arange(3), "same": weights, "mask": torch.tensor([True, False])},
        "backbone": {"half": torch.full((2, 2), fill, dtype=torch.float16).T, "none": torch.empty(0, 5)},
    }


def everything(folder):
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


def states(folder):
    return sorted(p.name for p in (folder / "states").iterdir())


@pytest.fixture
def model(tmp_path):
    write_state(tmp_path / "model", header=HEADER, tensors=tensors())
    return tmp_path / "model"


def test_what_is_written_is_read(model):
    state = read_state(model)
    assert state.header == HEADER
    assert state.n_generations == 1
    for stem, named in tensors().items():
        assert state.tensors[stem].keys() == named.keys()
        for name, tensor in named.items():
            assert state.tensors[stem][name].dtype == tensor.dtype
            assert torch.equal(state.tensors[stem][name], tensor)


@given(
    header=st.dictionaries(st.text(), st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists)),
    shape=st.lists(st.integers(0, 3), max_size=4),
)
def test_any_json_and_any_shape_come_back(tmp_path_factory, header, shape):
    folder = tmp_path_factory.mktemp("store") / "model"
    weights = torch.randn(shape)
    write_state(folder, header=header, tensors={"head": {"w": weights}})
    state = read_state(folder)
    assert state.header == header
    assert torch.equal(state.tensors["head"]["w"], weights)


def test_only_the_kept_states_stay(model):
    second = write_state(model, header={"n": 2}, tensors=tensors(2.0))
    assert states(model) == [second.name]
    write_state(model, header={"n": 3}, tensors=tensors(3.0), keep_history=True)
    write_state(model, header={"n": 4}, tensors=tensors(4.0), keep_history=True)
    assert [read_state(model, g).header["n"] for g in (0, 1, 2, -1)] == [2, 3, 4, 4]
    assert read_state(model, 1).tensors["head"]["weights"][0, 0] == 3.0
    assert read_state(model).n_generations == 3
    with pytest.raises(ModelError, match=r"`generation` must be below 3, got 3\. .* keeps 3; the oldest is number 0"):
        read_state(model, 3)
    last = write_state(model, header={"n": 5}, tensors=tensors(5.0))
    assert states(model) == [last.name]


def test_two_equal_states_have_two_names(model):
    first = read_state(model).path
    assert write_state(model, header=HEADER, tensors=tensors()) != first


def test_what_a_crash_before_the_flip_left_is_no_obstacle(model, tmp_path):
    shutil.copytree(model, tmp_path / "other")
    unflipped = write_state(tmp_path / "other", header={"n": 2}, tensors=tensors(2.0))
    shutil.copytree(unflipped, model / "states" / unflipped.name)
    assert read_state(model).header == HEADER
    assert write_state(model, header={"n": 2}, tensors=tensors(2.0)).name == unflipped.name
    assert read_state(model).header == {"n": 2}


def test_what_a_crash_in_the_first_write_left_is_no_obstacle(model):
    (model / "slots.json").rename(model / ".slots.json.0123abcd.tmp")
    write_state(model, header={"n": 1}, tensors=tensors())
    assert read_state(model).header == {"n": 1}
    assert sorted(p.name for p in model.iterdir()) == [".lock", "slots.json", "states"]


# Files that several states share


def inodes(folder):
    return {path.name: path.stat().st_ino for path in folder.iterdir()}


def test_an_unchanged_file_is_kept_once(tmp_path):
    model, big = tmp_path / "model", {"w": torch.randn(1_000_000)}
    paths = [
        write_state(model, header={"n": n}, tensors={"backbone": big, "head": {"w": torch.ones(n)}}, keep_history=True)
        for n in range(100)
    ]
    assert len({inodes(path)["backbone.safetensors"] for path in paths}) == 1
    assert len({inodes(path)["head.safetensors"] for path in paths}) == 100
    on_disk = {path.stat().st_ino: path.stat().st_blocks * 512 for path in model.rglob("*")}
    assert sum(on_disk.values()) < 6_000_000  # 4 MB once, and a hundred small files
    assert torch.equal(read_state(model, 42).tensors["backbone"]["w"], big["w"])


def test_a_shared_file_outlives_the_state_that_wrote_it(model):
    write_state(model, header={"n": 2}, tensors=tensors())
    third = write_state(model, header={"n": 3}, tensors=tensors())
    assert states(model) == [third.name]
    assert torch.equal(read_state(model).tensors["head"]["weights"], tensors()["head"]["weights"])


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: data[:-1] + bytes([data[-1] ^ 1])])
def test_damage_does_not_spread_to_the_next_state(model, damage):
    file = read_state(model).path / "backbone.safetensors"
    file.write_bytes(damage(file.read_bytes()))
    write_state(model, header={"n": 2}, tensors=tensors(), keep_history=True)
    assert torch.equal(read_state(model).tensors["backbone"]["half"], tensors()["backbone"]["half"])
    with pytest.raises(ModelError, match="the model is damaged"):
        read_state(model, 0)


def test_a_file_system_without_links_gets_copies(model, monkeypatch):
    def refuse(*_names):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", refuse)
    first, second = read_state(model), write_state(model, header={"n": 2}, tensors=tensors(), keep_history=True)
    assert not set(inodes(first.path).values()) & set(inodes(second).values())
    assert read_state(model).header == {"n": 2}
    restore_state(model, 0, header={"n": 3})
    assert torch.equal(read_state(model).tensors["head"]["weights"], tensors()["head"]["weights"])


# Headers, and the way back


def test_headers_are_read_without_tensors(model):
    write_state(model, header={"n": 2}, tensors=tensors(2.0), keep_history=True)
    (read_state(model).path / "head.safetensors").unlink()
    assert read_headers(model) == [HEADER, {"n": 2}]
    (model / "states" / states(model)[0] / "model.json").write_text("{}")
    with pytest.raises(ModelError, match="does not match its folder's name"):
        read_headers(model)


def test_an_older_state_becomes_current_under_a_new_header(model):
    write_state(model, header={"n": 2}, tensors=tensors(2.0), keep_history=True)
    path = restore_state(model, 0, header={"n": 3})
    assert [header.get("n") for header in read_headers(model)] == [None, 2, 3]
    assert torch.equal(read_state(model).tensors["head"]["weights"], tensors()["head"]["weights"])
    assert inodes(path)["head.safetensors"] == inodes(read_state(model, 0).path)["head.safetensors"]
    with pytest.raises(ModelError, match=r"`generation` must be below 3, got 3"):
        restore_state(model, 3, header={})
    with pytest.raises(UsageError, match="`header` must hold only what JSON can"):
        restore_state(model, 0, header={"n": {1}})


def test_a_damaged_state_is_not_made_current(model):
    file = read_state(model).path / "head.safetensors"
    write_state(model, header={"n": 2}, tensors=tensors(2.0), keep_history=True)
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    before = everything(model)
    with pytest.raises(ModelError, match="does not match its sha256"):
        restore_state(model, 0, header={"n": 3})
    assert everything(model) == before


def test_who_keeps_the_history_goes_on_from_the_current_state(model):
    write_state(model, header={"history": ["fit"]}, tensors=tensors())
    write_state(model, header={"history": ["fit", "first"]}, tensors=tensors(), keep_history=True)
    before = everything(model)
    with pytest.raises(StorageError, match="must be as it was read, but another generation was written since"):
        write_state(model, header={"history": ["fit", "second"]}, tensors=tensors(), keep_history=True)
    with pytest.raises(StorageError, match=r"another generation was written since\. Load the model again"):
        restore_state(model, 0, header={"history": ["fit", "undo"]})
    assert everything(model) == before
    write_state(model, header={"history": ["fit", "first", "third"]}, tensors=tensors(), keep_history=True)
    write_state(model, header={"history": ["a new fit"]}, tensors=tensors())
    assert read_headers(model) == [{"history": ["a new fit"]}]


# Refusing what is not ours


def test_a_foreign_folder_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("ten years of work")
    before = everything(tmp_path)
    with pytest.raises(StorageError, match=r"must be a model folder or empty, got one that holds 'thesis\.tex'"):
        write_state(tmp_path, header=HEADER, tensors=tensors())
    assert everything(tmp_path) == before


def test_a_foreign_slots_json_is_left_alone(tmp_path):
    (tmp_path / "slots.json").write_text('{"slots": 3}')
    with pytest.raises(ModelError, match=r"must say format 'neural-slots'; it belongs to something else"):
        write_state(tmp_path, header=HEADER, tensors=tensors())
    assert (tmp_path / "slots.json").read_text() == '{"slots": 3}'
    assert not (tmp_path / "states").exists()


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("text")
    with pytest.raises(StorageError, match="must be a folder, got a file"):
        write_state(tmp_path / "file", header=HEADER, tensors=tensors())
    with pytest.raises(StorageError, match="must be writable, got: Not a directory"):
        write_state(tmp_path / "file" / "model", header=HEADER, tensors=tensors())


def test_a_target_is_checked_without_a_trace(model, tmp_path):
    before = everything(tmp_path)
    check_target(model)
    check_target(tmp_path / "new" / "model")
    with pytest.raises(StorageError, match="must be a model folder or empty, got one that holds 'model'"):
        check_target(tmp_path)
    with pytest.raises(StorageError, match="must be writable, got: Not a directory"):
        check_target(model / "slots.json" / "model")
    assert everything(tmp_path) == before
    (model / "slots.json").write_text("{")
    with pytest.raises(ModelError, match="it is no JSON"):
        check_target(model)


def test_foreign_folders_among_the_states_stay(model):
    (model / "states" / "notes").mkdir()
    (model / "states" / "000007-0123abcd").mkdir()
    path = write_state(model, header=HEADER, tensors=tensors())
    assert states(model) == [path.name, "notes"]


@pytest.mark.parametrize("stem", ["", "../head", "a/b", ".hidden", "head\n", "model.json"])
def test_a_stem_is_a_plain_name(tmp_path, stem):
    with pytest.raises(UsageError, match="`tensors` must have plain names of letters, digits, _ and - as keys"):
        write_state(tmp_path / "model", header={}, tensors={stem: {}})
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, torch.zeros(1)])
def test_a_header_is_json(tmp_path, value):
    with pytest.raises(UsageError, match="`header` must hold only what JSON can"):
        write_state(tmp_path / "model", header={"value": value}, tensors={})


# What damage says


def test_no_model(tmp_path):
    with pytest.raises(ModelError, match=r"must be a model folder, got one without slots\.json"):
        read_state(tmp_path / "missing")


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "\x00\xff"])
def test_a_broken_pointer(model, text):
    (model / "slots.json").write_text(text, encoding="latin1")
    with pytest.raises(ModelError, match=r"slots\.json` must be as it was written, but it is no JSON"):
        read_state(model)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "must say format 'neural-slots'"),
        (
            {"schema": 2},
            r"schema 1 or older, got 2: a newer version wrote it\. Upgrade: pip install --upgrade neural-slots",
        ),
        ({"schema": "1"}, "its schema is '1'"),
        ({"schema": 0}, "its schema is 0"),
        ({"current": "../../etc"}, "it does not name its states"),
        ({"current": "../../etc", "generations": ["../../etc"]}, "it does not name its states"),
        ({"current": ["a"], "generations": [["a"]]}, "it does not name its states"),
        ({"generations": 7}, "it does not name its states"),
        ({"generations": []}, "it does not name its states"),
        ({"current": "000001-00000000", "generations": ["000001-00000000"]}, r"model\.json` must exist, and does not"),
    ],
)
def test_a_strange_pointer(model, change, message):
    pointer = json.loads((model / "slots.json").read_text())
    (model / "slots.json").write_text(json.dumps(pointer | change))
    with pytest.raises(ModelError, match=message):
        read_state(model)


@pytest.mark.parametrize("file", ["model.json", "head.safetensors", "backbone.safetensors"])
def test_a_missing_file(model, file):
    (read_state(model).path / file).unlink()
    with pytest.raises(ModelError, match="must exist, and does not: the model is damaged"):
        read_state(model)


@pytest.mark.parametrize("file", ["model.json", "head.safetensors", "backbone.safetensors"])
def test_a_flipped_bit_anywhere(model, file):
    path = read_state(model).path / file
    whole = path.read_bytes()
    for position in range(0, len(whole), 7):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        with pytest.raises(ModelError, match="the model is damaged"):
            read_state(model)
    path.write_bytes(whole)
    read_state(model)


def test_a_file_cut_short(model):
    path = read_state(model).path / "head.safetensors"
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ModelError, match=f"it has {size - 1} bytes, not {size}"):
        read_state(model)


def forge(model, change):
    """A state whose digests are right and whose content is not."""
    path = read_state(model).path
    document = json.loads((path / "model.json").read_text())
    change(path, document)
    raw = json.dumps(document).encode()
    (path / "model.json").write_bytes(raw)
    name = f"000009-{sha(raw)[:8]}"
    path.rename(path.with_name(name))
    pointer = {"format": "neural-slots", "schema": 1, "current": name, "generations": [name]}
    (model / "slots.json").write_text(json.dumps(pointer))


def sha(data):
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("name", ["../../../secret.safetensors", "/secret.safetensors", "head.bin", "model.json"])
def test_a_forged_name_reaches_nothing_outside(model, name):
    secret = {"bytes": 1, "sha256": sha(b"s")}
    forge(model, lambda _path, document: document["files"].update({name: secret}))
    with pytest.raises(ModelError, match=r"model\.json` must be as it was written, but it names a file"):
        read_state(model)


@pytest.mark.parametrize("junk", [b"", b"\xff" * 64, b"\x02\x00\x00\x00\x00\x00\x00\x00{]"])
def test_forged_tensors_are_refused(model, junk):
    def change(path, document):
        (path / "head.safetensors").write_bytes(junk)
        document["files"]["head.safetensors"] = {"bytes": len(junk), "sha256": sha(junk)}

    forge(model, change)
    with pytest.raises(ModelError, match="the model is damaged"):
        read_state(model)


@pytest.mark.parametrize("files", [None, 3, {"head.safetensors": None}, {"head.safetensors": {"bytes": 3}}])
def test_a_forged_list_of_files(model, files):
    forge(model, lambda _path, document: document.update(files=files))
    with pytest.raises(ModelError, match="it does not list its files"):
        read_state(model)


def test_a_forged_header(model):
    forge(model, lambda _path, document: document.update(header=[1]))
    with pytest.raises(ModelError, match="it does not list its files"):
        read_state(model)


# Failing writes


@pytest.mark.parametrize("is_new", [True, False])
def test_a_disk_that_fails_at_any_step(tmp_path, monkeypatch, is_new):
    folder = tmp_path / "deep" / "model"
    if not is_new:
        write_state(folder, header={"n": "old"}, tensors=tensors(1.0))
    synced = os.fsync
    calls = []
    # A write takes seven syncs: three files, two folders, the pointer and its folder; the names of new folders before.
    last = 10 if is_new else 7
    for failing in range(1, last + 1):
        before = everything(tmp_path)
        calls.clear()

        def fail(descriptor, failing=failing):
            calls.append(descriptor)
            if len(calls) == failing:
                raise OSError(28, "No space left on device")
            synced(descriptor)

        monkeypatch.setattr(os, "fsync", fail)
        with pytest.raises(StorageError, match="must be writable, got: No space left on device") as told:
            write_state(folder, header={"n": "new"}, tensors=tensors(2.0))
        if failing < last:
            assert everything(tmp_path) == before
            assert "What was there before is unchanged" in str(told.value)
        else:
            assert "unchanged" not in str(told.value)
            assert f"the new state {states(folder)[-1]} is in place, but might not survive" in str(told.value)
    # The last step forces the flip itself to disk: if that fails, the new state is in place and the old one too.
    assert read_state(folder).header == {"n": "new"}
    monkeypatch.setattr(os, "fsync", lambda descriptor: (calls.append(descriptor), synced(descriptor)))
    calls.clear()
    write_state(folder, header={"n": "last"}, tensors=tensors(3.0))
    assert len(calls) == 7
    assert read_state(folder).header == {"n": "last"}
    assert len(states(folder)) == 1


def test_a_real_limit_on_file_size(model):
    before = everything(model)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    try:
        with pytest.raises(StorageError, match="must be writable, got: File too large"):
            write_state(model, header={}, tensors={"a": {"w": torch.zeros(9)}, "b": {"w": torch.zeros(100_000)}})
        with pytest.raises(StorageError, match="must be writable, got: File too large"):
            write_file(model.parent / "report.html", bytes(300_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert everything(model) == before
    assert not (model.parent / "report.html").exists()
    assert sorted(p.name for p in model.parent.iterdir()) == ["model"]


def test_data_reaches_the_disk_before_the_name_does(tmp_path, monkeypatch):
    events = []
    synced, renamed, replaced = os.fsync, Path.rename, Path.replace

    def note_sync(descriptor):
        events.append(("sync", Path(os.readlink(f"/proc/self/fd/{descriptor}")).name.split(".")[-1]))
        synced(descriptor)

    def note_rename(path, target):
        events.append(("rename", "state"))
        return renamed(path, target)

    def note_replace(path, target):
        events.append(("rename", "pointer"))
        return replaced(path, target)

    if not Path("/proc/self/fd").exists():
        pytest.skip("needs /proc to tell which file a descriptor is")
    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(Path, "rename", note_rename)
    monkeypatch.setattr(Path, "replace", note_replace)
    write_state(tmp_path / "model", header={}, tensors={"head": {}})
    assert events == [
        ("sync", tmp_path.name.split(".")[-1]),  # the name of the new model folder,
        ("sync", "model"),  # and that of the folder of its states
        ("sync", "safetensors"),
        ("sync", "json"),
        ("sync", "tmp"),
        ("rename", "state"),
        ("sync", "states"),
        ("sync", "tmp"),
        ("rename", "pointer"),
        ("sync", "model"),
    ]


def test_one_writer_at_a_time(model):
    with FileLock(model / ".lock"):
        before = everything(model)
        with pytest.raises(StorageError, match="must be free, but another process is writing to it"):
            write_state(model, header={}, tensors={})
        assert read_state(model).header == HEADER
        assert everything(model) == before
    write_state(model, header={}, tensors={})


HOLDER = """
import sys, time
import slots.storage.store as store
with store._locked(store.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_lock_of_a_killed_process_is_free_at_once(model):
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(model)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(StorageError, match="must be free, but another process is writing to it"):
            restore_state(model, 0, header={})
        holder.kill()
    write_state(model, header={"n": 2}, tensors={})
    assert read_state(model).header == {"n": 2}


def test_a_lock_that_the_disk_refuses(model):
    (model / ".lock").unlink()
    (model / ".lock").mkdir()
    with pytest.raises(StorageError, match="must be writable, got: Is a directory"):
        write_state(model, header={}, tensors={})
    assert read_state(model).header == HEADER


def test_readers_take_no_lock(model):
    (model / ".lock").unlink()
    assert read_state(model).header == HEADER
    assert read_headers(model) == [HEADER]
    assert not (model / ".lock").exists()


WITHOUT_POSIX = """
import os, sys, warnings
sys.modules["fcntl"] = None  # what an import meets on Windows: an ImportError
del os.O_DIRECTORY
real = os.open
def open_no_folder(path, *rest, **more):
    if os.path.isdir(path):
        raise PermissionError(13, "Permission denied", path)
    return real(path, *rest, **more)
os.open = open_no_folder
warnings.filterwarnings("ignore", "only soft file lock is available")  # Windows has a lock of its own
import numpy as np
import slots.storage.store
x = np.random.default_rng(0).normal(size=(60, 5)) + np.repeat([[-9], [9]], 30, 0)
config = slots.TrainConfig(slots_per_class=1, epochs=0, device="cpu")
model, _ = slots.fit(x.astype(np.float32), np.repeat([0, 1], 30), config=config)
for _ in range(2):
    model.save(sys.argv[1], keep_history=True)
answers = slots.SlotModel.load(sys.argv[1]).predict(x.astype(np.float32)).labels
assert answers.tolist() == model.predict(x.astype(np.float32)).labels.tolist() == [0] * 30 + [1] * 30
"""


@pytest.mark.slow
def test_models_are_fitted_saved_and_loaded_where_nothing_is_posix(tmp_path):
    command = [sys.executable, "-c", WITHOUT_POSIX, str(tmp_path / "model")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in (tmp_path / "model").iterdir()) == ["slots.json", "states"]


def test_a_reader_follows_a_writer_that_removes_its_state(model, monkeypatch):
    seen = read_state(model).path
    real = states_module.read_plain
    reads = []

    def read_while_someone_writes(path, **most):
        if path == seen / "head.safetensors" and not reads:
            reads.append(path)
            write_state(model, header={"n": "newer"}, tensors=tensors())
        return real(path, **most)

    monkeypatch.setattr(states_module, "read_plain", read_while_someone_writes)
    assert read_state(model).header == {"n": "newer"}
    assert reads


def test_killed_writers_leave_a_whole_model(tmp_path):
    done = run([tmp_path / "model", 120, 5], script=support.kill.__file__, timeout=120)
    assert done.returncode == 0, done.stderr
    kills, within, _states, left = done.stdout.strip().split(", ")
    assert kills == "120 kills"
    assert int(within.split()[0]) >= 10  # otherwise the kills came at moments that prove nothing
    assert not [name for name in left.split() if name.endswith(".tmp")]


# Single files


def test_write_file_replaces_and_makes_its_folder(tmp_path):
    target = tmp_path / "a" / "b" / "report.html"
    write_file(target, b"one")
    write_file(str(target), b"two")
    assert target.read_bytes() == b"two"
    assert [p.name for p in target.parent.iterdir()] == ["report.html"]


def test_folders_that_are_made_are_forced_to_disk(tmp_path, monkeypatch):
    synced, real = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda it: (synced.append(os.fstat(it).st_ino), real(it)))
    write_file(tmp_path / "a" / "b" / "report.html", b"one")
    assert synced[:2] == [(tmp_path / "a").stat().st_ino, tmp_path.stat().st_ino]


def test_write_file_onto_a_folder(tmp_path):
    with pytest.raises(StorageError, match="must be writable, got: Is a directory"):
        write_file(tmp_path, b"one")
    assert not list(tmp_path.iterdir())
