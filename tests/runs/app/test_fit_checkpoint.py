"""The checkpoint of a fit goes when the model is in place, not before; one that cannot go costs no model."""

from dataclasses import replace

import pytest
from support.small_models import mixture

import slots
from protocols.app.fit import checkpoint_path, fit_and_save
from protocols.data.dataset import Dataset
from protocols.recipes.planning import plan
from slots.errors import StorageError
from slots.training.checkpoint import remove_checkpoint

CONFIG = slots.TrainConfig(epochs=1, slots_per_class=2, device="cpu")


@pytest.fixture
def data():
    x, y = mixture(3, 40)
    return Dataset("three", x, y, x[:9], y[:9], ("cat", "dog", "bird"), "digest")


def fitted(data, out, **options):
    name, recipe = plan(data, None)
    return fit_and_save(data, name, replace(recipe, train=CONFIG, reads_data=False), out=out, command="", **options)


def in_the_way(checkpoint):
    """A folder in a file's place, which no unlink removes, root's neither."""
    checkpoint.unlink()
    checkpoint.mkdir()


def test_the_checkpoint_is_there_until_the_model_is(data, tmp_path):
    out, told = tmp_path / "m", []

    def look(step, share):
        told.append((step, checkpoint_path(out).is_file(), (out / "slots.json").exists()))

    fitted(data, out, progress=look)
    assert told[-1] == ("measuring", True, False)  # a kill or a full disk from here on would cost the training
    assert (out / "slots.json").is_file()
    assert not checkpoint_path(out).exists()


def test_a_checkpoint_that_stays_is_named_beside_the_model_that_is_in_place(data, tmp_path):
    out = tmp_path / "m"

    def block(step, share):
        if step == "measuring" and share == 0.0 and checkpoint_path(out).is_file():
            in_the_way(checkpoint_path(out))

    with pytest.raises(StorageError, match=r"^`.*/m` is in place, but the checkpoint of its fit, `.*`, must be"):
        fitted(data, out, progress=block)
    assert slots.SlotModel.load(out).head.n_slots >= 3
    assert (out / "report.html").read_text().rstrip().endswith("</html>")


def test_the_library_returns_the_model_and_warns(tmp_path):
    x, y = mixture(3, 40)
    path = tmp_path / "checkpoint"

    def block(step, share):
        if path.is_file() and not step.startswith(("epoch", "initial")):
            in_the_way(path)

    with pytest.warns(RuntimeWarning, match="must be removable") as caught:
        model, _ = slots.fit(x, y, config=CONFIG, checkpoint=path, progress=block)
    assert caught[0].filename == __file__
    assert (model.predict(x).labels == y).mean() > 0.9


def test_a_kept_checkpoint_is_the_callers(tmp_path):
    x, y = mixture(3, 40)
    path = tmp_path / "checkpoint"
    slots.fit(x, y, config=CONFIG, checkpoint=path, keep_checkpoint=True)
    assert path.is_file()
    remove_checkpoint(path, saved=tmp_path)
    remove_checkpoint(path, saved=tmp_path)  # nothing there, nothing to do
    assert not path.exists()
