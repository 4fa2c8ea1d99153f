"""Another folder's content as the next generation: numbers go on, tensors come in as they are, and undo leads back."""

import pytest
import torch

from slots.errors import ModelError, OutdatedError
from slots.storage import log, read_state, undo, write_state
from slots.storage.importing import holds_same, import_state, shared

LINES = [{"number": n, "what": what, "n_slots": 2, "figures": {}} for n, what in enumerate(["fit", "update", "update"])]


def write(folder, n, value, names=("cat",), lines=LINES):
    header = {"history": lines[:n], "class_names": list(names), "clusters": [], "scale": 1.0}
    write_state(folder, header=header, tensors={"head": {"w": torch.full((3,), value)}}, keep_history=True)
    return folder


@pytest.fixture
def two(tmp_path):
    here = write(tmp_path / "here", 1, 1.0, ("cat", "dog", "owl"))
    there = write(tmp_path / "there", 1, 2.0)
    return here, write(there, 3, 3.0, ("cat", "dog"))


def test_the_number_is_above_all_of_both_and_undo_leads_back(two):
    here, there = two
    assert import_state(here, there, onto=0, n_slots=4, figures={"by": "ann"}) == 3
    state = read_state(here)
    assert torch.equal(state.tensors["head"]["w"], torch.full((3,), 3.0))
    assert (state.header["generation"], state.header["class_names"]) == (3, ["cat", "dog", "undone label 2"])
    line = state.header["history"][-1]
    assert (line["what"], line["n_slots"], line["figures"]["by"], line["figures"]["goes_on_from"]) == (
        "import",
        4,
        "ann",
        0,
    )
    assert holds_same(here, there)
    assert import_state(there, here, onto=2, n_slots=4, figures={}) == 4
    assert undo(here).number == 4
    assert torch.equal(read_state(here).tensors["head"]["w"], torch.ones(3))
    assert not holds_same(here, there)
    assert [(it.number, it.what, it.content) for it in log(here)] == [(0, "fit", 0), (3, "import", 3), (4, "undo", 0)]


def test_what_is_wrong_changes_nothing(two, tmp_path):
    here, there = two
    before = read_state(here)
    with pytest.raises(OutdatedError, match="generation 0 is there now"):
        import_state(here, there, onto=1, n_slots=2, figures={})
    lines = [{**LINES[0], "number": 1 << 30}]
    with pytest.raises(ModelError, match="at most 1,000,000"):
        import_state(here, write(tmp_path / "far", 1, 1.0, lines=lines), onto=0, n_slots=2, figures={})
    (file,) = there.glob("states/000002*/head.safetensors")
    file.write_bytes(b"x")
    with pytest.raises(ModelError, match="bytes, not"):
        import_state(here, there, onto=0, n_slots=2, figures={})
    after = read_state(here)
    assert (after.path, after.header) == (before.path, before.header)


def test_a_history_whose_lines_lead_in_circles_comes_to_an_end():
    forged = [{"number": 1, "what": "import", "figures": {"goes_on_from": 1}}]
    assert shared(forged, forged) == 1
    assert shared(LINES, [*LINES[:2], {"number": 2, "what": "import", "figures": {"goes_on_from": "x"}}]) == -1
