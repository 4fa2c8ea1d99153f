"""The paths that a GPU takes, without one: no operation on tensors of two devices, the CPU's answers, and few waits.

See `support.pretended_gpu` for what that can tell. Triton's kernels have their own tests, in its interpreter.
"""

import collections
import copy
import math

import numpy as np
import pytest
import torch
from support.nets import TinyNet, blobs, strokes
from support.pretended_gpu import PretendedGpu
from torch import nn

import slots
from slots.clustering.device_kmeans import device_centres
from slots.novelty import NoveltyDetector
from slots.training import TrainConfig, fit

ROWS = {"classes": 6, "feature": 16, "spread": 0.5}


@pytest.fixture
def gpu():
    with PretendedGpu() as found:
        yield found


@pytest.fixture(scope="module")
def model():
    """Six classes of rows, on the CPU."""
    x, y = blobs(1500, **ROWS)
    return fit(x, y, config=TrainConfig(epochs=3, slots_per_class=4))[0]


@pytest.fixture(scope="module")
def new():
    """Rows of these six classes and of two more; some match."""
    return blobs(800, **{**ROWS, "classes": 8})


def there(model):
    return copy.deepcopy(model).to("cuda")


def same(a, b, *names):
    for name in names:
        assert np.array_equal(getattr(a, name), getattr(b, name)), name


# --- the pretence itself


def test_what_is_made_of_a_tensor_lies_where_it_does(gpu):
    x = torch.arange(6.0).to("cuda")
    assert x.is_cuda
    assert str(x.device) == "cuda:0"
    made = [
        x + 1,
        x.view(2, 3),
        x[1:],
        torch.zeros_like(x),
        torch.zeros(2, device=x.device),
        x.double(),
        nn.Parameter(x),
    ]
    assert all(it.is_cuda for it in [*made, *x.split(2), *x.sort()])
    assert not torch.zeros(3).is_cuda
    assert not torch.from_numpy(np.zeros(3)).is_cuda
    assert gpu.n_waits == 0
    net = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4)).to("cuda")
    assert all(it.is_cuda for it in net.state_dict().values())
    assert net(torch.ones(3, 6, device="cuda")).is_cuda
    assert not x.cpu().is_cuda
    assert x.is_cuda


def test_tensors_of_two_devices_do_not_meet(gpu):
    x, y = torch.ones(3, device="cuda"), torch.ones(3)
    for wrong in (lambda: x + y, lambda: torch.cat([x, y]), lambda: y.add_(x), lambda: torch.where(x > 0, x, y)):
        with pytest.raises(RuntimeError, match="at least two devices"):
            wrong()
    assert (x + torch.tensor(2.0)).is_cuda  # a number may lie anywhere
    assert x[torch.tensor([0, 2])].is_cuda  # and so may an index, which is copied
    x.copy_(y)
    with pytest.raises(TypeError, match="to numpy"):
        x.numpy()
    with pytest.raises(TypeError, match="to numpy"):
        np.asarray(x)


def test_waits_are_counted(gpu):
    x = torch.tensor([0.0, 2.0, 3.0], device="cuda")
    for waits in (
        x.sum().item, x.tolist, x.nonzero, x.cpu, x.unique, lambda: bool((x > 1).any()), lambda: x[x > 1],
        lambda: torch.where(x > 1), lambda: x.numpy(force=True), lambda: int(x[0]),
        lambda: torch.repeat_interleave(x, torch.tensor([1, 0, 2], device="cuda")),
    ):  # fmt: skip
        before = gpu.n_waits
        waits()
        assert gpu.n_waits > before
    before = gpu.n_waits
    for free in (
        x.sum,
        lambda: x * 2,
        lambda: torch.where(x > 1, x, 0),
        lambda: x[torch.argmax(x)],
        lambda: x.to("cuda"),
    ):
        free()
    assert gpu.n_waits == before


def test_gradients_lie_with_their_parameters(gpu):
    net = nn.Linear(4, 2).to("cuda")
    net(torch.ones(3, 4, device="cuda")).sum().backward()
    torch.optim.AdamW(net.parameters(), fused=True).step()
    assert net.weight.is_cuda


def test_nothing_is_left_of_it():
    with PretendedGpu():
        assert torch.Generator("cuda") is not None
    assert not torch.zeros(2).is_cuda
    assert torch.from_numpy(np.zeros(2)).device.type == "cpu"
    assert torch.Generator.__module__.startswith("torch")


# --- the library on it


@pytest.fixture
def slow_gpu():
    """Of a kind that is slow in float64."""
    with PretendedGpu(capability=(8, 6)) as found:
        yield found


ANSWERS = ("labels", "answers", "slots", "margins", "runner_up_slots", "runner_up_margins")


def test_answers_are_the_cpus_and_a_block_waits_once(model, new, gpu):
    """For the answers; what is made of the slots is kept until they change."""
    expected, moved = model.predict(new[0]), there(model)
    same(moved.predict(new[0]), expected, *ANSWERS)
    assert 0 < expected.matched.mean() < 1
    for n in (50, 800):  # of one block, however large
        before = gpu.n_waits
        moved.predict(new[0][:n])
        assert gpu.n_waits - before == 1
    moved.head.precision_thresholds.fill_(1.0)
    assert not moved.predict(new[0]).matched.any()


def test_what_is_in_doubt_there_is_decided_on_the_cpu(model, new, gpu):
    """Slots that stand twice tie; their columns come to the host once."""
    twice = copy.deepcopy(model)
    twice.head.weights.data = twice.head.weights.data.clone()
    twice.head.weights.data[1], twice.head.centres[1] = twice.head.weights.data[0], twice.head.centres[0]
    twice.head.labels[1] = twice.head.labels[0]
    expected, moved = twice.predict(new[0]), there(twice)
    same(moved.predict(new[0]), expected, *ANSWERS)
    before = gpu.n_waits
    same(moved.predict(new[0]), expected, *ANSWERS)
    assert gpu.n_waits - before == 2
    assert {0, 1} & set(expected.slots.tolist())


def test_a_gpu_that_is_slow_in_float64_waits_four_times(model, new, slow_gpu):
    """How many pairs may match, all of them and the slots' columns in one copy, exact margins, and all the others."""
    expected, moved = model.predict(new[0]), there(model)
    waits = []
    for n in (50, 800):
        before = slow_gpu.n_waits
        found = moved.predict(new[0][:n])
        waits.append(slow_gpu.n_waits - before)
    assert waits[0] == waits[1] <= 4
    same(found, expected, *ANSWERS)
    before = slow_gpu.n_waits
    assert moved.predict(new[0][expected.matched]).matched.all()
    assert slow_gpu.n_waits - before <= 3


def test_guesses_of_what_is_remembered_are_the_cpus(model, new, gpu):
    x, y = new
    taught = copy.deepcopy(model)
    taught.update(x, {int(it): 6 for it in np.flatnonzero(y == 6)[:6]}, config=slots.UpdateConfig(recall=True))
    assert taught.head.recall is not None
    expected, moved = taught.predict(x), there(taught)
    before = gpu.n_waits
    found = moved.predict(x)
    assert gpu.n_waits - before <= 9
    same(found, expected, "labels", "answers", "slots")


def test_novelty_is_the_cpus(model, new, gpu):
    expected, moved = model.assess_novelty(new[0]), there(model)
    before = gpu.n_waits
    found = moved.assess_novelty(new[0])
    assert gpu.n_waits - before <= 6
    same(found, expected, "novel")
    assert np.allclose(found.p_values, expected.p_values)


def test_an_update_picks_and_teaches_as_on_the_cpu(model, new, gpu):
    x, y = new
    reports, models = [], (copy.deepcopy(model), there(model))
    for one in models:
        proposal = one.propose(x, budget=8)
        reports.append(
            (proposal.queries.tolist(), one.update(x, {int(q): int(y[q]) for q in proposal.queries}, proposal=proposal))
        )
    assert reports[0][0] == reports[1][0]
    assert reports[0][1].slots_added == reports[1][1].slots_added > 0
    assert models[1].device.type == "cuda"
    answers = [it.predict(x) for it in models]
    assert np.mean(answers[0].labels == answers[1].labels) > 0.98
    steps = [n for line, n in gpu.waits.items() if "rehearsal_gradient" in line]
    assert max(steps) < 20  # to begin with, and none in the hundreds of steps


def test_an_epoch_of_training_waits_twice_at_most(gpu, monkeypatch):
    """Of a head alone and of a network, whatever the number of batches; four times a second more for the progress."""
    monkeypatch.setattr("slots.training.steps.tally._SECONDS_BETWEEN_LOOKS", math.inf)
    x, y = blobs(1500, **ROWS)
    images, kinds = strokes(200)
    nets = {"views": "flip", "augment": "shift1", "slots_per_class": 2, "batch_size": 20, "device": "cuda"}
    for case in (
        lambda n: fit(x, y, config=TrainConfig(epochs=n, slots_per_class=4, batch_size=50, device="cuda")),
        lambda n: fit(images, kinds, backbone=TinyNet(), config=TrainConfig(epochs=n, **nets)),
    ):
        spent = []
        for epochs in (1, 4):
            gpu.waits.clear()
            model, _ = case(epochs)
            spent.append(sum(n for line, n in gpu.waits.items() if "training/loop" in line or "training/steps" in line))
        assert model.device.type == "cuda"
        assert model.head.n_slots > 0
        assert spent[1] - spent[0] <= 2 * 3


def test_a_fit_is_about_the_cpus(gpu):
    x, y = blobs(1500, **ROWS)
    test = blobs(600, **ROWS, seed=0)
    models = [fit(x, y, config=TrainConfig(epochs=4, slots_per_class=4, device=it))[0] for it in ("cpu", "cuda")]
    right = [float((it.predict(test[0]).labels == test[1]).mean()) for it in models]
    assert abs(right[0] - right[1]) < 0.02


def test_a_cover_picks_what_the_cpu_picks(new, gpu):
    x, y = map(torch.from_numpy, new)
    expected, found = slots.class_cover(x, y), slots.class_cover(x.to("cuda"), y.to("cuda"))
    assert found.picked.is_cuda
    assert found.picked.tolist() == expected.picked.tolist()
    assert found.thresholds.tolist() == expected.thresholds.tolist()
    assert found.covered.tolist() == expected.covered.tolist()


def test_a_graph_has_the_cpus_groups(new, gpu):
    x = torch.from_numpy(new[0])
    expected, found = slots.learn_graph(x), slots.learn_graph(x.to("cuda"))
    assert found.n_communities == expected.n_communities


def test_far_rows_are_found_as_on_the_cpu(new, gpu):
    x = torch.from_numpy(new[0])
    found = NoveltyDetector().fit(x.to("cuda"))
    novel = found.predict(torch.cat([x[:50], 100 + torch.randn(50, 16)]).to("cuda"))
    assert len(novel) == 100
    centres = device_centres(x.to("cuda"), 5, seed=0)
    assert centres.is_cuda
    assert centres.shape == (5, 16)


def test_the_counter_names_lines_of_the_library(model, new, gpu):
    there(model).predict(new[0])
    assert isinstance(gpu.waits, collections.Counter)
    assert all(line.startswith("slots/") for line in gpu.waits)
