"""A training whose steps are replayed is the training, to the bit; on a GPU it was not run yet."""

from dataclasses import replace

import pytest
import torch
from support.nets import TinyNet, blobs, strokes
from support.pretended_gpu import PretendedGpu
from support.replayed import Replays

from slots.errors import UsageError
from slots.training import TrainConfig, fit
from slots.training.steps import recorded
from slots.training.steps.recorded import RecordedStep, records_steps

ROWS = TrainConfig(epochs=5, slots_per_class=3, batch_size=48, margin=0.1, label_smoothing=0.05, device="cuda")


class Net(TinyNet):
    """Nothing in it changes over the training."""

    has_schedule = False


@pytest.fixture
def replays(monkeypatch):
    """Steps are recorded, on a GPU that is pretended."""
    made = []

    def recorder():
        made.append(Replays())
        return made[-1]

    monkeypatch.setattr(recorded, "CudaRecorder", recorder)
    monkeypatch.setenv("SLOTS_GRAPH", "1")
    with PretendedGpu():
        yield made


def both_ways(monkeypatch, *args, **options):
    """Models of a training that is replayed, and of one that is not."""
    replayed, _ = fit(*args, **options)
    monkeypatch.setenv("SLOTS_GRAPH", "0")
    return replayed, fit(*args, **options)[0]


def same(one, other):
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


def test_a_head_learns_the_same(replays, monkeypatch):
    """Batches of one shape but for the last of each epoch, and another rate at each step."""
    x, y = blobs(500, classes=4, feature=12, spread=0.8)
    same(*both_ways(monkeypatch, x, y, config=ROWS))
    (used,) = replays
    whole, epochs = -(-int(500 * 0.95) // 48) - 1, ROWS.epochs
    assert used.recorded == 1
    assert used.aside_calls == 3
    assert whole * epochs - 4 <= used.replayed <= whole * epochs


@pytest.mark.parametrize("rates", [{}, {"views": "flip", "augment": "shift1", "weight_decay": 0.05}])
def test_a_network_learns_the_same(replays, monkeypatch, rates):
    x, y = strokes(200)
    config = TrainConfig(epochs=3, slots_per_class=2, batch_size=20, device="cuda", **rates)

    def net():
        torch.manual_seed(0)
        return Net()

    one, _ = fit(x, y, backbone=net(), config=config)
    monkeypatch.setenv("SLOTS_GRAPH", "0")
    same(one, fit(x, y, backbone=net(), config=config)[0])
    assert replays[0].replayed > 10


def test_a_training_that_was_cut_goes_on_the_same(replays, monkeypatch, tmp_path):
    x, y = blobs(300, classes=3, feature=8)
    whole, _ = fit(x, y, config=ROWS)
    seen = []

    def stop():
        seen.append(None)
        return len(seen) > 12

    fit(x, y, config=ROWS, checkpoint=tmp_path / "checkpoint", stop=stop)
    same(whole, fit(x, y, config=ROWS, checkpoint=tmp_path / "checkpoint", resume=True)[0])


@pytest.mark.parametrize("changes", [{"slots_per_class": 0}, {"features_per_slot": 4}])
def test_what_the_host_decides_is_not_recorded(replays, changes):
    x, y = blobs(200, classes=3, feature=8)
    fit(x, y, config=replace(ROWS, epochs=2, **changes))
    assert not replays


def test_a_backbone_with_a_schedule_is_not_recorded(replays):
    x, y = strokes(60)
    fit(x, y, backbone=TinyNet(), config=TrainConfig(epochs=1, slots_per_class=1, batch_size=20, device="cuda"))
    assert not replays


def test_a_step_that_looks_at_a_number_is_refused(replays):
    class Looking(Net):
        def forward(self, x):
            found = super().forward(x)
            return found * 2 if float(found.detach().sum()) > 1e9 else found

    x, y = strokes(200)
    config = TrainConfig(epochs=2, slots_per_class=2, batch_size=20, device="cuda")
    with pytest.raises(UsageError, match=r"cannot be recorded .* SLOTS_GRAPH"):
        fit(x, y, backbone=Looking(), config=config)


def test_a_replay_is_counted_as_a_change():
    """Else what is kept of the slots would be out of date."""
    weights = torch.ones(3)
    step = RecordedStep(lambda x: weights.add_(x).sum(), lambda: [weights], recorder=(used := Replays()))
    for place in range(6):
        before = weights._version
        loss = step(torch.full((3,), 2.0))
        assert weights._version > before
        assert float(loss) == 3 + 6 * (place + 1)
    assert used.replayed == 3
    assert float(step(torch.ones(1))) == 42  # of another shape: as it is


def test_only_a_gpu_records_and_only_where_it_is_asked(monkeypatch):
    assert not records_steps(torch.device("cuda"))
    monkeypatch.setenv("SLOTS_GRAPH", "1")
    assert records_steps(torch.device("cuda"))
    assert not records_steps(torch.device("cpu"))
