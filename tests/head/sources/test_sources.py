"""Data sets of PyTorch as inputs: read is what they hold, in bounded memory, and a fit on it is the same fit."""

import tracemalloc

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

import backbones
from slots import ContinualSlots, SlotClassifier, TrainConfig, fit
from slots.errors import DataError, UsageError
from slots.sources import is_source, read_source
from slots.sources.spooling import RowSpool

QUICK = TrainConfig(epochs=1, slots_per_class=2, held_out=0.0)


def images(n=12, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, 6, 5, 3), dtype=np.uint8)


def as_tensors(x):
    """As `torchvision.transforms.ToTensor` gives them."""
    return torch.from_numpy(x).permute(0, 3, 1, 2).float() / 255


class Pairs(Dataset):
    """Examples one by one, with names of the classes as torchvision's sets have them."""

    def __init__(self, x, y, classes=None):
        self.x, self.y = x, y
        if classes is not None:
            self.classes = classes

    def __len__(self):
        return len(self.x)

    def __getitem__(self, place):
        return self.x[place], self.y[place]


class Told(IterableDataset):
    def __init__(self, examples):
        self.examples = examples

    def __iter__(self):
        return iter(self.examples)


def rows(n=60, seed=0):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 3
    return (3 * np.eye(3)[y] + 0.3 * rng.normal(size=(n, 3))).astype(np.float32), y


FORMS = {
    "loader of floats": lambda x, y: DataLoader(TensorDataset(as_tensors(x), torch.from_numpy(y)), batch_size=5),
    "loader of bytes": lambda x, y: DataLoader(
        TensorDataset(torch.from_numpy(x).permute(0, 3, 1, 2), torch.from_numpy(y)), batch_size=5
    ),
    "pictures": lambda x, y: Pairs([Image.fromarray(it) for it in x], y.tolist()),
    "arrays": Pairs,
    "stream": lambda x, y: Told(zip(x, y, strict=True)),
    "dicts": lambda x, y: Told({"label": b, "image": a} for a, b in zip(x, y, strict=True)),
    "loader of dicts": lambda x, y: DataLoader(
        Told([{"pixel_values": a, "labels": int(b), "name": "it"} for a, b in zip(x, y, strict=True)]), batch_size=5
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_arrays(form):
    x, y = images(), np.arange(12) % 3
    found = read_source(FORMS[form](x, y))
    assert found.x.dtype == np.uint8
    assert np.array_equal(found.x, x)
    assert np.array_equal(found.y, y)
    assert found.class_names == ()


def test_grey_pictures_rows_and_sentences():
    grey = images()[..., 0]
    pictures = [Image.fromarray(it) for it in grey]
    assert np.array_equal(read_source(Told(pictures)).x, grey[..., None])
    x, y = rows()
    found = read_source(Pairs(x.astype(np.float64), ["abc"[it] for it in y]))
    assert found.x.dtype == np.float32
    assert np.array_equal(found.x, x)
    assert found.y.tolist() == ["abc"[it] for it in y]
    texts = read_source(DataLoader(Pairs(["one", "two", "three"], [0, 1, 1]), batch_size=2))
    assert texts.x.tolist() == ["one", "two", "three"]
    assert texts.x.dtype == object


def test_names_of_classes_are_found_behind_loaders_and_subsets():
    data = Pairs(images(), [0, 1] * 6, classes=["cat", "dog"])
    found = read_source(DataLoader(Subset(data, range(3)), batch_size=2))
    assert found.class_names == ("cat", "dog")
    assert found.named_labels().tolist() == ["cat", "dog", "cat"]
    with pytest.raises(DataError, match="from 0 to 1"):
        read_source(Pairs(images(2), [0, 2], classes=["cat", "dog"])).named_labels()


def test_many_inputs_lie_in_a_file_and_not_in_memory():
    one = np.arange(4096, dtype=np.uint8).reshape(64, 64)
    count = 5000  # 20 MB
    tracemalloc.start()
    try:
        found = read_source(Told(one for _ in range(count)), in_memory=1 << 20)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found.x.shape == (count, 64, 64)
    assert peak < 8 << 20
    assert isinstance(found.x, np.memmap)
    assert np.array_equal(found.x[count - 1], one)
    found.x[0] = 7  # a write stays in memory, as torch wants
    assert found.x[0].max() == 7


@pytest.mark.parametrize("limit", [0, 10**9])
def test_a_spool_gives_the_blocks_back(limit):
    spool = RowSpool(limit)
    blocks = [np.random.default_rng(i).normal(size=(i + 1, 3)) for i in range(4)]
    for block in blocks:
        spool.add(block)
    with pytest.raises(DataError, match="one form"):
        spool.add(np.zeros((1, 4)))
    found = spool.rows()
    assert np.array_equal(found, np.concatenate(blocks))
    assert isinstance(found, np.memmap) == (limit == 0)


def test_a_fit_on_a_loader_is_the_fit_on_its_arrays():
    x, y = images(60), np.arange(60) % 3
    backbone = backbones.build("pixels", input_shape=(3, 6, 5))
    names = ("ant", "bee", "cow")
    wanted, _ = fit(x, y, backbone=backbone, config=QUICK, class_names=names)
    data = Pairs(torch.from_numpy(x), y.tolist(), classes=names)
    found, _ = fit(DataLoader(data, batch_size=7), backbone=backbone, config=QUICK)
    assert found.class_names == names
    assert torch.equal(found.head.weights, wanted.head.weights)
    assert np.array_equal(found.predict(DataLoader(data, batch_size=9)).labels, wanted.predict(x).labels)
    assert found.propose(data, budget=3).queries.tolist() == wanted.propose(x, budget=3).queries.tolist()
    with pytest.raises(UsageError, match="`y` must be given"):
        fit(Told(list(x)), backbone=backbone, config=QUICK)
    with pytest.raises(UsageError, match="`y` must be given"):
        fit(x, backbone=backbone, config=QUICK)


def test_labels_that_are_given_win():
    x, y = rows()
    found, _ = fit(Pairs(x, (y * 0).tolist(), classes=["all"]), y, config=QUICK)
    assert sorted(found.head.classes.tolist()) == [0, 1, 2]


SETTLED = {"epochs": 2, "scale": 20, "whitening": None, "geometry": "lifted", "vouch": None}


@pytest.mark.parametrize(("kind", "options"), [(SlotClassifier, SETTLED), (ContinualSlots, {})])
def test_estimators_learn_from_a_data_set(kind, options):
    x, y = rows()
    data = Pairs(x, y.tolist(), classes=["a", "b", "c"])
    wanted = kind(random_state=0, **options).fit(x, np.array(["a", "b", "c"])[y]).predict(x)
    learner = kind(random_state=0, **options).fit(DataLoader(data, batch_size=16))
    assert np.array_equal(learner.predict(data), wanted)
    assert learner.partial_fit(data).classes_.tolist() == ["a", "b", "c"]
    with pytest.raises(ValueError, match="y"):
        kind().fit(x)


class Refused(Dataset):
    """A data set whose examples are what a test says."""

    def __init__(self, examples):
        self.examples = examples

    def __len__(self):
        return len(self.examples)

    def __getitem__(self, place):
        return self.examples[place]


COLOUR, GREY = Image.new("RGB", (4, 4)), Image.new("L", (4, 4))


@pytest.mark.parametrize(
    ("examples", "said"),
    [
        ([], "an empty data set"),
        ([(torch.full((3, 4, 4), -0.5), 0)], "Leave Normalize out"),
        ([torch.zeros(3, 4, 4), torch.zeros(3, 5, 4)], "one shape"),
        ([COLOUR, Image.new("RGB", (4, 5))], "one size, got 4 x 4 and 5 x 4"),
        ([GREY, *[GREY] * 255, COLOUR], "colour after grey"),
        ([(1.0, 2)], "must give images"),
        ([np.zeros((4, 4), np.uint16)], "8 bits a channel"),
        ([(np.zeros(3), 0, "third")], "got 3 parts"),
        ([{"picture": COLOUR}], "under one of the names image"),
        ([(np.zeros(3), 0), np.zeros(3)], "for every example or for none"),
        ([(np.zeros(3), [0, 1])], "one label an example"),
    ],
)
def test_what_is_no_data_is_said_in_a_sentence(examples, said):
    with pytest.raises(DataError, match=said):
        read_source(Refused(examples))


def test_arrays_and_lists_are_no_data_sets():
    assert not any(map(is_source, (None, "text", ["a"], np.zeros(2), torch.zeros(2), 3, Image.new("L", (1, 1)))))
    assert is_source(Refused([]))
