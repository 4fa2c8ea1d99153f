"""Tensors are taken as arrays are: those that ask for gradients, and those on a device."""

import numpy as np
import pytest
import torch

from slots import ContinualSlots, SlotClassifier, SlotClusterer, SlotOutlierDetector

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))]


def data():
    rng = np.random.default_rng(0)
    y = np.arange(90) % 3
    return 3 * np.eye(3)[y] @ rng.normal(size=(3, 6)) + 0.3 * rng.normal(size=(90, 6)), y


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("estimator", [ContinualSlots, SlotClassifier, SlotClusterer, SlotOutlierDetector])
def test_tensors_give_the_answers_of_arrays(estimator, device):
    x, y = data()
    expected = estimator(random_state=0).fit(x, y).predict(x)
    rows = torch.from_numpy(x).to(device).requires_grad_()
    found = estimator(random_state=0).fit(rows, torch.from_numpy(y).to(device)).predict(rows)
    assert np.array_equal(found, expected)
