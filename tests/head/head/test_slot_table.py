"""The table of slots: what state dictionaries call its columns, and names that were in use before."""

import pytest
import torch

from slots.head import IncrementalNeuralHashing
from slots.index import SlotIndex


@pytest.fixture
def head():
    head = IncrementalNeuralHashing(feature_dim=3)
    head.add_slots(torch.eye(3)[:2], torch.tensor([4, 2]))
    head.add_slots(torch.eye(3)[2:], torch.tensor([4]), pooled=False, generation=1)
    return head


def test_state_dictionaries_keep_the_name_of_the_stored_format(head):
    stored = torch.nn.Sequential(head).state_dict()
    assert list(stored) == [
        f"0.{name}"
        for name in (
            "weights",
            "centres",
            "labels",
            "precision_thresholds",
            "support_thresholds",
            "generations",
            "hits",
            "exemplars",
            "trained",
            "held_out",
            "classes",
        )
    ]
    other = torch.nn.Sequential(IncrementalNeuralHashing(feature_dim=3))
    other.load_state_dict(stored)
    assert other[0].pooled.tolist() == [True, True, False]
    for name, value in head.state_dict().items():
        assert torch.equal(other[0].state_dict()[name], value), name


def test_a_state_without_the_column_is_refused(head):
    stored = head.state_dict()
    del stored["trained"]
    with pytest.raises(RuntimeError, match="pooled"):
        IncrementalNeuralHashing(feature_dim=3).load_state_dict(stored)


def test_former_names_are_understood(head):
    with pytest.warns(DeprecationWarning, match="`trained` of .*add_slots is called `pooled` now"):
        head.add_slots(-torch.eye(3)[:1], torch.tensor([2]), trained=False)
    assert head.pooled.tolist() == head.trained.tolist() == [True, True, False, False]
    with pytest.warns(DeprecationWarning, match="`head` of SlotIndex is called `leading_dims` now"):
        assert SlotIndex(head.caps(), head=2).bound_dimensions == 2
