"""What no model has is refused when a folder is opened, in one sentence; every honest model opens."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from support.small_models import mixture, new_animals, three_animals

import backbones
import slots
from slots.errors import ModelError
from slots.model.serialisation import from_state
from slots.storage.generations import generation_of, history_lines, log
from slots.storage.store import read_state, write_state

NAN, INF = float("nan"), float("inf")


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """Header and tensors of a model with every part: whitening, novelty with classes, rehearsal."""
    x, y = mixture(3, 80)
    config = slots.TrainConfig(epochs=2, slots_per_class=3, held_out=0.3, whitening=0.2, device="cpu")
    model, _ = slots.fit(x, y, class_names=["cat", "dog", "bird"], config=config)
    model.update(np.float32([[0, 0, 0, 0, 0, 1]] * 5), {0: "new"})
    folder = tmp_path_factory.mktemp("stored") / "model"
    model.save(folder)
    state = read_state(folder)
    assert {"head", "whitening", "novelty", "rehearsal", "support"} <= state.tensors.keys()
    assert any(name.startswith("classes.") for name in state.tensors["novelty"])
    return state


def changed(stored, tmp_path, change):
    header = json.loads(json.dumps(stored.header))
    tensors = {stem: {name: value.clone() for name, value in named.items()} for stem, named in stored.tensors.items()}
    change(header, tensors)
    write_state(tmp_path / "model", header=header, tensors=tensors)
    return tmp_path / "model"


def test_the_unchanged_model_opens(stored, tmp_path):
    model = slots.SlotModel.load(changed(stored, tmp_path, lambda _header, _tensors: None))
    assert model.head.n_slots > 3


def entry(stem, name, value, *, at=0):
    def change(_header, tensors):
        tensors[stem][name].view(-1)[at] = value

    return pytest.param(change, id=f"{stem}-{name}-{value}")


def replaced(stem, name, make):
    def change(_header, tensors):
        tensors[stem][name] = make(tensors[stem][name]).contiguous()

    return change


def header(*path, to):
    def change(document, _tensors):
        for key in path[:-1]:
            document = document[key]
        document[path[-1]] = to

    return pytest.param(change, id=f"{'-'.join(map(str, path))}-{to!r:.20}")


TENSORS = [
    *(entry("head", name, value) for name in ("weights", "centres") for value in (NAN, INF, 2.0, -1e30)),
    *(
        entry("head", name, value)
        for name in ("precision_thresholds", "support_thresholds")
        for value in (NAN, INF, 5.0)
    ),
    *(entry("head", "labels", value) for value in (-1, 10**9, 2**62)),
    *(entry("head", "generations", value) for value in (-1, 2, 10**9)),
    *(entry("head", name, -2) for name in ("hits", "exemplars", "held_out", "classes")),
    entry("head", "held_out", 10**6, at=1),
    entry("head", "classes", 3),
    *(entry("support", "features", value) for value in (NAN, 3.0)),
    *(entry("whitening", name, value) for name in ("mean", "matrix") for value in (NAN, INF)),
    *(entry("novelty", name, value) for name in ("basis", "stretch", "calibration") for value in (NAN, INF)),
    *(entry("novelty", f"classes.{name}", NAN) for name in ("mean", "whitening", "places", "between")),
    entry("novelty", "calibration", 1e9),
    *(entry("rehearsal", name, value) for name, value in (("features", NAN), ("features", 5.0), ("labels", -1))),
]


@pytest.mark.parametrize("change", TENSORS)
def test_one_wrong_number_in_a_tensor_is_refused(stored, tmp_path, change):
    with pytest.raises(ModelError, match=r"damaged or was edited|cannot be rebuilt") as caught:
        slots.SlotModel.load(changed(stored, tmp_path, change))
    assert "\n" not in str(caught.value)


EVERY = [
    ("head", "weights"), ("head", "centres"), ("head", "labels"), ("head", "hits"), ("head", "exemplars"),
    ("support", "features"), ("whitening", "matrix"), ("whitening", "mean"), ("novelty", "basis"),
    ("novelty", "stretch"), ("novelty", "classes.places"), ("novelty", "classes.between"),
    ("rehearsal", "features"), ("rehearsal", "labels"), ("rehearsal", "held_out"),
]  # fmt: skip
SHAPES = {
    "fewer": lambda value: value[:-1],
    "twice": lambda value: torch.cat([value, value]),
    "flat": lambda value: value.reshape(-1) if value.ndim > 1 else value[None],
    "wider": lambda value: torch.cat([value, value], -1),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("stem", "name"), EVERY)
def test_shapes_that_do_not_belong_together_are_refused(stored, tmp_path, stem, name, shape):
    if name == "classes.places" and shape in {"fewer", "twice"}:
        return  # so many classes as there are
    with pytest.raises(ModelError, match=r"damaged or was edited|cannot be rebuilt") as caught:
        slots.SlotModel.load(changed(stored, tmp_path, replaced(stem, name, SHAPES[shape])))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("stem", "name", "kind"),
    [
        ("head", "weights", torch.int64),
        ("head", "labels", torch.float32),
        ("head", "trained", torch.uint8),
        ("support", "features", torch.int64),
        ("rehearsal", "labels", torch.float32),
        ("rehearsal", "held_out", torch.int64),
        ("novelty", "calibration", torch.float32),
        ("novelty", "basis", torch.float64),
        ("novelty", "stretch", torch.float16),
    ],
)
def test_numbers_of_another_kind_are_refused(stored, tmp_path, stem, name, kind):
    with pytest.raises(ModelError, match="damaged or was edited"):
        slots.SlotModel.load(changed(stored, tmp_path, replaced(stem, name, lambda value: value.to(kind))))


HEADERS = [
    *(header("head", "feature_dim", to=value) for value in (0, 5, 10**12, True, 6.0)),
    *(header("head", "scale", to=value) for value in (0, -1, 1e300, "60", None)),
    *(header("head", "beta", to=value) for value in (-1, 1e300, [])),
    *(header("head", "precision", to=value) for value in (0, 2, None)),
    *(header("preprocessing", "shape", to=value) for value in ([], [5], [6, 1, 1], [-6], ["6"], 6, [10**12], ["x", 9])),
    *(header("preprocessing", "kind", to=value) for value in ("images", "text", "sounds", 3, None, [])),
    *(header("preprocessing", "mean", to=value) for value in ([0.0], ["0"], 3)),
    *(header("views", to=value) for value in ("flip", "turn", 3, None)),
    *(header("class_names", to=value) for value in (3, [1, 2, 3], None, [None])),
    *(header("clusters", to=value) for value in ([-1], ["a"], [10**12], [[1]], 3, [1.5])),
    *(header("history", to=value) for value in (3, [3], [{}], {"a": 1}, [{"number": 0}])),
    *(header("history", 0, "number", to=value) for value in (0, -1, "1", 1.0, True, 2**60)),
    *(header("history", 0, "n_slots", to=value) for value in (-1, "1", None)),
    *(header("history", 0, "what", to=value) for value in (3, None, [])),
    *(header("history", 0, "figures", to=value) for value in (3, None, [])),
    *(header("novelty", "shares", to=value) for value in ([], [2, 0, 0], ["a", 0, 0], 3, [0.5] * 3000)),
    *(header("novelty", "excess", to=value) for value in ([0, 1, 1], [1, 1], [-1, 1, 1], [None] * 3)),
    *(header("novelty", "knots", 0, to=value) for value in ([1.0] * 9, [2.0] + [1.0] * 9, ["a"] * 10, 3)),
    *(header("novelty", name, to=value) for name in ("rest", "middle") for value in (1e300, "nan", None, -1e9)),
    *(header("novelty", "classes", "weights", to=value) for value in ([1.0], [-1.0] * 5, ["a"] * 5, 3)),
    *(header("novelty", "classes", name, to=value) for name in ("total_knots", "total_excess") for value in ([], 3)),
    *(header(name, to=value) for name in ("head", "preprocessing", "novelty") for value in (3, [], "x")),
]  # fmt: skip


@pytest.mark.parametrize("change", HEADERS)
def test_a_wrong_header_is_refused(stored, tmp_path, change):
    with pytest.raises(ModelError) as caught:
        slots.SlotModel.load(changed(stored, tmp_path, change))
    assert "\n" not in str(caught.value)


def test_texts_that_would_take_more_memory_than_they_have_are_refused(stored, tmp_path):
    lengths = [["x"] * 2000, *[[]] * 2000]

    def change(_header, tensors):
        tensors["exemplars"] = {"texts": torch.from_numpy(np.frombuffer(json.dumps(lengths).encode(), np.uint8).copy())}

    with pytest.raises(ModelError, match="equally many for each slot"):
        slots.SlotModel.load(changed(stored, tmp_path, change))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Header and tensors of a model of pictures of 1 x 6 x 8 through a network that has 5 features."""
    x = np.random.default_rng(0).integers(0, 256, (60, 6, 8), dtype=np.uint8)
    x[1::2] //= 8
    net = backbones.build("cnn", input_shape=(1, 6, 8), width=1, hidden=5)
    config = slots.TrainConfig(epochs=1, slots_per_class=2, device="cpu")
    model, _ = slots.fit(x, np.arange(60) % 2, backbone=net, config=config)
    folder = tmp_path_factory.mktemp("pictures") / "model"
    model.save(folder)
    state = read_state(folder)
    assert state.tensors["exemplars"]["images"].shape[1:] == (4, 6, 8, 1)
    return state


SHOWN = {
    "narrower": lambda value: value[:, :, :, :-1],
    "lower": lambda value: value[:, :, :-1],
    "coloured": lambda value: value.repeat(1, 1, 1, 1, 3),
    "one fewer a slot": lambda value: value[:, :-1],
    "one slot fewer": lambda value: value[:-1],
    "flat": lambda value: value.reshape(-1),
    "turned": lambda value: value.transpose(2, 3),
    "of another kind": lambda value: value.to(torch.int8),
}


@pytest.mark.parametrize("shape", SHOWN)
def test_pictures_of_another_size_than_the_inputs_are_refused(pictures, tmp_path, shape):
    """An update could not put its own beside them."""
    folder = changed(pictures, tmp_path, replaced("exemplars", "images", SHOWN[shape]))
    with pytest.raises(ModelError, match=r"must be images of shape \(\d, 4, 6, 8, 1\), got"):
        slots.SlotModel.load(folder, build=backbones.build)


def test_features_of_fewer_examples_than_an_update_remembers_are_refused(pictures, tmp_path):
    folder = changed(pictures, tmp_path, replaced("support", "features", lambda value: value[:, :-1]))
    with pytest.raises(ModelError, match=r"remembered features must be of shape \(\d, 4, 5\), got \(\d, 3, 5\)"):
        slots.SlotModel.load(folder, build=backbones.build)


def test_rows_have_no_pictures_to_look_at(stored, tmp_path):
    def change(_header, tensors):
        n = len(tensors["head"]["weights"])
        tensors["exemplars"] = {"images": torch.zeros(n, 4, 6, 6, 1, dtype=torch.uint8)}

    with pytest.raises(ModelError, match="must be features of shape"):
        slots.SlotModel.load(changed(stored, tmp_path, change))


def test_pictures_without_the_backbone_that_reads_them_are_refused(pictures, tmp_path):
    def change(document, tensors):
        document["backbone"] = None
        del tensors["backbone"]

    with pytest.raises(ModelError, match="a model of images must have a backbone"):
        slots.SlotModel.load(changed(pictures, tmp_path, change), build=backbones.build)


def test_a_model_of_pictures_is_updated_after_it_was_read(pictures, tmp_path):
    model = slots.SlotModel.load(changed(pictures, tmp_path, lambda _header, _tensors: None), build=backbones.build)
    x = np.zeros((20, 6, 8), np.uint8)
    x[:, 2:4] = 255
    model.update(x, {0: "bar"})
    assert model.thumbnails.shape == (model.head.n_slots, 4, 6, 8, 1)


@pytest.mark.parametrize("word", [b"NaN", b"Infinity", b"-Infinity", b"1e999"])
def test_json_that_is_none_is_refused(tmp_path, word):
    write_state(tmp_path / "model", header={"a": 0.5}, tensors={})
    pointer = tmp_path / "model" / "slots.json"
    pointer.write_bytes(pointer.read_bytes().replace(b'"schema": 1', b'"other": ' + word + b', "schema": 1'))
    with pytest.raises(ModelError, match="it is no JSON"):
        read_state(tmp_path / "model")


@pytest.mark.parametrize(
    "line",
    [
        3,
        {},
        {"number": "0", "what": "fit", "n_slots": 1},
        {"number": 0, "what": "fit", "n_slots": 1, "figures": {"when": 3}},
        {"number": 1, "what": "undo", "n_slots": 1, "figures": {}},
        {"number": 1, "what": "undo", "n_slots": 1, "figures": {"to": 1}},
    ],
)
def test_a_log_of_wrong_lines_is_refused(tmp_path, line):
    write_state(tmp_path / "model", header={"history": [line]}, tensors={})
    for read in (log, lambda folder: generation_of(read_state(folder).header)):
        with pytest.raises(ModelError, match="lines do not follow each other"):
            read(tmp_path / "model")
    assert history_lines({}) == []


def test_models_put_together_by_hand_open(tmp_path):
    model = three_animals()
    model.history.clear()
    model.class_names = ()
    model.head.add_slots(torch.eye(8)[6:7], torch.tensor([900_000]), generation=5)
    model.exemplar_features = None
    model.save(tmp_path / "model")
    assert slots.SlotModel.load(tmp_path / "model").predict(new_animals()).labels.max() == 900_000


def test_checked_parts_are_what_was_stored(stored):
    parts = from_state(dict(stored.header), {stem: dict(named) for stem, named in stored.tensors.items()}, None)
    assert dataclasses.asdict(parts.preprocessing)["shape"] == (6,)
    assert torch.equal(parts.head.labels, stored.tensors["head"]["labels"])
