"""Parts: channels that compete, where a part is found, and patches in place of channels."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

import backbones
from backbones.layers.whitening_stem import WhiteningStem
from backbones.parts.competition import Competition


@pytest.fixture
def net():
    torch.manual_seed(0)
    return backbones.build("parts", input_shape=(2, 12, 15), channels=6, width=8, receptive_field=5).eval()


@given(seed=st.integers(0, 2**31), channels=st.integers(1, 6), sharpness=st.floats(0.0, 8.0))
def test_competition_is_its_formula(seed, channels, sharpness):
    x = torch.randn(2, channels, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    found = Competition(sharpness)(x)
    for image, row, column in [(0, 0, 0), (1, 1, 2)]:
        values = x[image, :, row, column].tolist()
        length = math.sqrt(sum(value**2 for value in values) / channels)
        weights = [math.exp(sharpness * value / length) for value in values]
        expected = [max(0.0, value) * weight / sum(weights) for value, weight in zip(values, weights, strict=True)]
        assert found[image, :, row, column].tolist() == pytest.approx(expected, abs=1e-9)


def test_brighter_is_more_of_the_same():
    x = torch.randn(3, 5, 2, 2, dtype=torch.float64)
    assert torch.allclose(Competition(3.0)(7 * x), 7 * Competition(3.0)(x))


def test_a_blank_patch_has_a_gradient():
    x = torch.zeros(1, 4, 1, 1, requires_grad=True)
    Competition(2.0)(x).sum().backward()
    assert torch.isfinite(x.grad).all()


def test_features_are_the_largest_responses_of_overlapping_cells(net):
    x = torch.randn(3, 2, 12, 15)
    with torch.no_grad():
        features, responses = net(x).reshape(3, 6, *net.cells), net.responses(x)
    rows, columns = responses.shape[2:]
    assert (rows, columns) == (8, 11)
    assert net.cells == (3, 3)
    for row in range(3):
        for column in range(3):
            window = responses[:, :, 2 * row : 2 * row + 4, 2 * column : 2 * column + 6]
            assert torch.equal(features[:, :, row, column], window.amax((2, 3)))


def test_anywhere_is_one_cell():
    torch.manual_seed(0)
    net = backbones.build("parts", input_shape=(2, 12, 15), channels=6, width=8, receptive_field=5, where="anywhere")
    x = torch.randn(3, 2, 12, 15)
    with torch.no_grad():
        features, responses = net.eval()(x), net.responses(x)
        assert (net.cells, features.shape) == ((1, 1), (3, 6))
        assert torch.equal(features, responses.amax((2, 3)))
        for image, places in enumerate(net.found_at(x, range(6)).tolist()):
            for part, (row, column) in enumerate(places):
                assert responses[image, part, row, column] == features[image, part]
        net.take_parts(torch.eye(6)[:3], torch.zeros(3, 3, dtype=torch.long), torch.zeros(3, 2, 5, 5))
        assert torch.allclose(net(x), features[:, :3])


def test_a_pooled_first_layer_is_what_its_words_say():
    torch.manual_seed(0)
    net = backbones.build("parts", input_shape=(2, 16, 18), channels=4, width=8, receptive_field=5, first="pooled")
    x = torch.rand(30, 2, 16, 18)
    net.prepare_(x)
    stem, _, convolution, _, norm, *_ = net.eval().encoder[0]
    rebuilt = WhiteningStem(2)
    rebuilt.learn_(x)
    assert torch.equal(stem.weight, rebuilt.weight)
    with torch.no_grad():
        seen = functional.conv2d(functional.relu(functional.conv2d(x[:2], stem.weight)), convolution.weight)
        places = seen.unfold(2, 2, 2).unfold(3, 2, 2).amax((4, 5))
        torch.testing.assert_close(net.encoder[0][:5](x[:2]), norm(places))
    # As many places as one convolution of 5x5 pixels in steps of two has.
    plain = backbones.build("parts", input_shape=(2, 16, 18), channels=4, width=8, receptive_field=5).eval()
    assert net.locations(x).shape == plain.locations(x).shape


def test_a_pooled_first_layer_is_explained():
    torch.manual_seed(0)
    net = backbones.build(
        "parts", input_shape=(2, 16, 18), channels=4, width=8, receptive_field=9, first="pooled"
    ).double()
    x = torch.randn(30, 2, 16, 18, dtype=torch.float64)
    net.prepare_(x)
    net.train()(x)  # statistics of their own
    with backbones.detached_gates(net.eval()):
        assert backbones.grp_gap(net, x[:4]).relative < 1e-10


@pytest.mark.parametrize("options", [{"step": 1}, {"receptive_field": 4, "step": 2}])
def test_a_pooled_first_layer_needs_a_step_of_two_and_five_pixels(options):
    with pytest.raises(ValueError, match="`first` must be convolution with a step of"):
        backbones.build("parts", input_shape=(1, 12, 12), first="pooled", **options)


def test_parts_are_found_where_they_respond_most(net):
    x = torch.randn(4, 2, 12, 15)
    with torch.no_grad():
        features, responses = net(x), net.responses(x)
    asked = range(0, net.feature_dim, 5)
    for image, places in enumerate(net.found_at(x, asked).tolist()):
        for feature, (row, column) in zip(asked, places, strict=True):
            assert responses[image, feature // 9, row, column] == features[image, feature]


def test_a_share_is_the_template_of_its_patch(net):
    """The gradient of a feature is 0 outside of the box where it was found, and explains all of it inside."""
    x = torch.randn(1, 2, 12, 15)
    with torch.no_grad():
        features = net(x)[0]
    for feature in features.topk(5).indices.tolist():
        template = net.template(x, torch.eye(net.feature_dim)[feature])[0]
        top, left, bottom, right = net.field(tuple(net.found_at(x, [feature])[0, 0].tolist()))
        inside = torch.zeros(12, 15, dtype=torch.bool)
        inside[top:bottom, left:right] = True
        assert (template[:, ~inside] == 0).all()
        assert (template * x[0]).sum().item() == pytest.approx(features[feature].item(), rel=1e-4)


def test_patches_take_the_place_of_channels(net):
    x = torch.randn(3, 2, 12, 15)
    with torch.no_grad():
        vectors = net.locations(x)[[0, 2], :, [1, 3], [2, 0]]
    patches = torch.stack([x[0, :, 1:6, 2:7], x[2, :, 3:8, 0:5]])
    net.take_parts(vectors, torch.tensor([[0, 1, 2], [2, 3, 0]]), patches)
    assert (net.n_parts, net.feature_dim, net.options["parts"]) == (2, 18, 2)
    with torch.no_grad():
        assert net(x).shape == (3, 18)
        assert net.responses(x)[0, 0, 1, 2] == pytest.approx(vectors[0].norm().item(), rel=1e-5)
    again = backbones.build("parts", input_shape=(2, 12, 15), **net.options).eval()
    again.load_state_dict(net.state_dict())
    with torch.no_grad():
        assert torch.equal(again(x), net(x))
    assert torch.equal(again.patches, patches)


def test_patches_respond_from_a_cosine_on(net):
    x = torch.randn(3, 2, 12, 15)
    with torch.no_grad():
        maps = net.locations(x).double()
        vectors = maps[[0, 2], :, [1, 3], [2, 0]]
        net.take_parts(vectors.float(), torch.zeros(2, 3, dtype=torch.long), torch.zeros(2, 2, 5, 5), threshold=0.7)
        found = net.responses(x)
    for part, vector in enumerate(vectors):
        for place in [(0, 1, 2), (1, 4, 5), (2, 0, 0)]:
            patch = maps[place[0], :, place[1], place[2]]
            cosine = (patch @ vector / patch.norm() / vector.norm()).item()
            expected = patch.norm().item() * max(0.0, cosine - 0.7) / 0.3
            assert found[place[0], part, place[1], place[2]].item() == pytest.approx(expected, abs=1e-5)
    assert (found == 0).any()
    again = backbones.build("parts", input_shape=(2, 12, 15), **net.options).eval()
    again.load_state_dict(net.state_dict())
    with torch.no_grad():
        assert torch.equal(again.responses(x), found)


def test_patches_that_do_not_fit_are_refused(net):
    vectors, sources, patches = torch.ones(2, 6), torch.zeros(2, 3, dtype=torch.long), torch.zeros(2, 2, 5, 5)
    for wrong in [
        (vectors[:, :5], sources, patches),
        (vectors, sources[:1], patches),
        (vectors, sources, patches[:, :, :4]),
        (vectors[:0], sources[:0], patches[:0]),
    ]:
        with pytest.raises(ValueError, match="must have shapes"):
            net.take_parts(*wrong)
    with pytest.raises(ValueError, match="no zero row"):
        net.take_parts(vectors * torch.tensor([[1.0], [0.0]]), sources, patches)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"receptive_field": 29}, "at most 28, the shorter side.* 27 can be built"),
        ({"receptive_field": 10}, "multiple of the step of 2, got 10. 9 can be built"),
        ({"receptive_field": 0}, "`receptive_field` must be a positive integer"),
        ({"channels": 0}, "`channels` must be a positive integer"),
        ({"step": 0}, "`step` must be a positive integer"),
        ({"threshold": 1.0}, "`threshold` must lie in"),
        ({"threshold": True}, "`threshold` must lie in"),
        ({"sharpness": -1.0}, "`sharpness` must be a finite number"),
    ],
)
def test_sizes_that_cannot_be_built_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        backbones.build("parts", input_shape=(1, 28, 28), **options)


@pytest.mark.parametrize("side", range(1, 40))
def test_every_side_has_a_default(side):
    net = backbones.build("parts", input_shape=(1, side, side), channels=3, width=4).eval()
    assert net(torch.rand(2, 1, side, side)).shape == (2, net.feature_dim)
    assert net.options["receptive_field"] <= max(1, round(0.4 * side))
