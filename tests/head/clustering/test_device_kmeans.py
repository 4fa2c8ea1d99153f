import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits

from slots.clustering.device_kmeans import _drawn, device_centres

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def inertia(rows, centres):
    return float(torch.cdist(rows.double(), centres.double()).amin(1).square().sum())


@pytest.mark.parametrize("seed", range(3))
def test_as_good_as_scikit_learn(seed):
    rows = torch.from_numpy(load_digits().data.astype(np.float32)).to(DEVICE)
    theirs = np.mean(
        [KMeans(40, n_init=1, max_iter=10, random_state=s).fit(rows.cpu().numpy()).inertia_ for s in range(5)]
    )
    assert inertia(rows, device_centres(rows, 40, seed=seed)) < 1.05 * theirs


def test_one_pass_is_the_mean_of_the_nearest():
    rows = torch.rand(200, 6, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    start = _drawn(rows, 5, torch.Generator(DEVICE).manual_seed(3))
    owner = torch.cdist(rows, start).argmin(1)
    means = torch.stack([rows[owner == c].mean(0) for c in range(5)])
    torch.testing.assert_close(device_centres(rows, 5, seed=3, passes=1), means)


def test_chances_are_the_squared_distances():
    rows = torch.tensor([[0.0, 1.0], [1.0, 1.0], [3.0, 1.0]], device=DEVICE)
    seconds = np.zeros(3)
    for seed in range(2000):
        first, second = (int((rows == row).all(1).nonzero()) for row in _drawn(rows, 2, generator(seed)))
        if first == 0:
            seconds[second] += 1
    share = seconds[2] / seconds.sum()
    assert abs(share - 0.9) < 4 * (0.09 / seconds.sum()) ** 0.5


def generator(seed):
    return torch.Generator(DEVICE).manual_seed(seed)


def test_copies_are_drawn_once_and_zeros_are_no_centres():
    rows = torch.tensor([[1.0, 0.0]] * 5 + [[0.0, 1.0]] * 4 + [[0.0, 0.0]] * 3, device=DEVICE)
    centres = device_centres(rows, 10, seed=0)
    assert sorted(centres.tolist()) == [[0.0, 1.0], [1.0, 0.0]]


def test_the_same_for_the_same_seed():
    rows = torch.rand(500, 4, generator=torch.Generator().manual_seed(1)).to(DEVICE)
    assert torch.equal(device_centres(rows, 9, seed=2), device_centres(rows, 9, seed=2))
    assert not torch.equal(device_centres(rows, 9, seed=2), device_centres(rows, 9, seed=4))
