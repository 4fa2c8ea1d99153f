"""`SlotEncoder` in scikit-learn: unit features of every kind of input, clones, pickles, folds, and its own checks."""

import pickle
import warnings

import numpy as np
import pandas
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_digits
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import estimator_checks_generator
from support.encoders import tiny_encoder
from torch import nn
from torch.nn import functional

import backbones
from protocols.interfaces import SlotEncoder
from protocols.recipes.weights import load_trained
from slots import SlotClassifier, SlotModel, TrainConfig, fit
from slots.errors import DataError, UsageError
from slots.features.preprocessing import Preprocessing

SENTENCES = ["where is my parcel", "my parcel is late", "pay the bill", "the bill is wrong"] * 3
TOPICS = ["parcel", "parcel", "bill", "bill"] * 3


def photographs(n=5, shape=(8, 8, 3), seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8)


@pytest.fixture(scope="module")
def text_backbone(tmp_path_factory):
    words = sorted({word for sentence in SENTENCES for word in sentence.split()})
    return f"text:{tiny_encoder(tmp_path_factory.mktemp('encoder') / 'tiny', words=words)}"


@pytest.mark.parametrize("backbone", ["auto", "none"])
def test_scikit_learn_checks_it_as_any_transformer(backbone):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the checks warn of what they try
        checks = list(estimator_checks_generator(SlotEncoder(backbone)))
        assert len(checks) > 30
        for estimator, check in checks:
            try:
                check(estimator)
            except Exception as error:
                if type(error).__name__ != "SkipTest":
                    raise


@pytest.mark.parametrize(("backbone", "tag"), [("pixels", "three_d_array"), ("text:any", "string")])
def test_tags_say_what_it_takes(backbone, tag):
    tags = SlotEncoder(backbone).__sklearn_tags__().input_tags
    assert getattr(tags, tag)
    assert not tags.two_d_array


def test_features_are_the_backbones_at_unit_length():
    x = photographs()
    inputs = Preprocessing.of(x)(x)
    for backbone, weights, net in [
        ("pixels", None, backbones.build("pixels", input_shape=(3, 8, 8))),
        (small_net(), None, small_net()),
    ]:
        wanted = functional.normalize(net(inputs).flatten(1)).detach().numpy()
        encoder = SlotEncoder(backbone, weights=weights)
        assert np.allclose(encoder.fit_transform(x), wanted, atol=1e-6)
        assert len(encoder.get_feature_names_out()) == encoder.n_features_out_ == wanted.shape[1]


def small_net():
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def test_a_module_of_the_users_stays_as_it_is():
    net = small_net().train()
    SlotEncoder(net).fit_transform(photographs())
    assert net.training
    assert all(parameter.requires_grad for parameter in net.parameters())


def test_weights_of_the_project_and_of_a_file(tmp_path):
    x = photographs(2, (32, 32, 3))
    trained = load_trained("positive", "cifar10").build((3, 32, 32)).eval()
    wanted = functional.normalize(trained(Preprocessing.of(x)(x))).detach().numpy()
    assert np.allclose(SlotEncoder("positive", weights="cifar10").fit_transform(x), wanted, atol=1e-5)
    net = backbones.build("pretrained", input_shape=(3, 32, 32), network="cifar_resnet20")
    torch.save(full_state(), tmp_path / "net.pt")
    assert SlotEncoder("cifar_resnet20", weights=str(tmp_path / "net.pt")).fit_transform(x).shape == (
        2,
        net.feature_dim,
    )


def full_state():
    from backbones.nets.cifar_resnet import CifarResNet

    return CifarResNet(20).state_dict()


def test_a_model_folder_gives_what_its_slots_see(tmp_path):
    digits = load_digits()
    rows = digits.data[:300].astype(np.float32)
    model, _ = fit(rows, digits.target[:300], config=TrainConfig(epochs=1, slots_per_class=1, whitening=0.5))
    model.save(tmp_path / "model")
    features = SlotModel.load(tmp_path / "model").features(rows[:7])[:, 0]
    found = SlotEncoder(str(tmp_path / "model")).fit_transform(rows[:7])
    assert np.allclose(found, functional.normalize(features).detach().numpy(), atol=1e-6)


def test_lists_of_paths_and_of_pictures_are_what_arrays_are(tmp_path):
    x = photographs(3)
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for path, image in zip(paths, x, strict=True):
        Image.fromarray(image).save(path)
    wanted = SlotEncoder("pixels").fit_transform(x)
    for given in (paths, [str(path) for path in paths], [Image.open(path) for path in paths], np.array(paths)):
        assert np.array_equal(SlotEncoder("pixels").fit_transform(given), wanted)
    Image.fromarray(photographs(1, (9, 9, 3))[0]).save(tmp_path / "large.png")
    with pytest.raises(DataError, match="8 x 8"):
        SlotEncoder("pixels").fit(paths).transform([*paths, tmp_path / "large.png"])


def test_sentences_of_every_container_come_through_a_pipeline(text_backbone):
    encoder = SlotEncoder(text_backbone)
    wanted = encoder.fit_transform(SENTENCES)
    assert np.allclose(np.linalg.norm(wanted, axis=1), 1, atol=1e-6)
    table = pandas.DataFrame({"mail": SENTENCES, "length": [len(it) for it in SENTENCES]})
    for given in (np.array(SENTENCES), np.array(SENTENCES, object), table["mail"], table[["mail"]]):
        assert np.array_equal(encoder.transform(given), wanted)
    mixed = make_column_transformer((encoder, "mail"), ("passthrough", ["length"])).fit_transform(table)
    assert mixed.shape == (len(SENTENCES), encoder.n_features_out_ + 1)
    pipeline = make_pipeline(SlotEncoder(text_backbone), SlotClassifier(random_state=0, epochs=3, scale=20))
    assert cross_val_score(pipeline, SENTENCES, TOPICS, cv=2).mean() == 1.0
    assert np.array_equal(pickle.loads(pickle.dumps(encoder)).transform(SENTENCES), wanted)


def test_clones_and_folds_of_pictures():
    digits = load_digits()
    images, labels = (digits.images[:400] * 15).astype(np.uint8), digits.target[:400]
    pipeline = make_pipeline(SlotEncoder("pixels", options={}), KNeighborsClassifier())
    assert clone(pipeline).get_params()["slotencoder__backbone"] == "pixels"
    assert cross_val_score(pipeline, images, labels, cv=2).mean() > 0.85
    fitted = pipeline.fit(images, labels)
    again = pickle.loads(pickle.dumps(fitted))
    assert np.array_equal(again.predict(images), fitted.predict(images))
    frame = SlotEncoder().set_output(transform="pandas").fit_transform(images[:2])
    assert list(frame)[:2] == ["slotencoder0", "slotencoder1"]


@pytest.mark.parametrize(
    ("backbone", "weights", "x", "said"),
    [
        ("cnn", None, photographs(), "untrained features say little"),
        ("torchvision:resnet18", None, photographs(), "`weights` must be given"),
        ("auto", None, SENTENCES, "text:NAME for sentences"),
        ("pixels", None, np.eye(3), "must be uint8 images"),
        ("none", "default", np.eye(3), "must be left out"),
        ("explor", "mnist", photographs(), "pretrained` must be one of"),
        ("text:no-such-encoder-here", None, SENTENCES, "nothing is downloaded"),
    ],
)
def test_what_does_not_fit_is_said_in_a_sentence(backbone, weights, x, said):
    with pytest.raises(UsageError, match=said):
        SlotEncoder(backbone, weights=weights).fit(x)


def test_another_kind_of_input_is_refused_later():
    encoder = SlotEncoder("pixels").fit(photographs())
    with pytest.raises(DataError, match="8, 8, 3"):
        encoder.transform(photographs(2, (9, 9, 3)))
