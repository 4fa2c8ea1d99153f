"""Certificates behind views of one length and behind a net of a known constant: attacked in the pixels."""

import copy

import numpy as np
import pytest
import torch

import backbones
import slots
from protocols.data.loading import load_data
from slots.errors import UsageError
from slots.features.views import parse_views
from slots.head.similarities import normalize
from slots.robust import certify
from slots.robust.certificate import pooled_slots
from slots.robust.certified_features import Reach, view_orders, virtual_caps, virtual_slots
from slots.robust.matched_slots import matched_radii

DIGITS = load_data("digits")
SHAPE = (1, 8, 8)


def fitted(name, *, views="none", epochs=3, **options):
    torch.manual_seed(0)
    backbone = backbones.build(name, input_shape=SHAPE, **options)
    config = slots.TrainConfig(epochs=epochs, slots_per_class=3, batch_size=100, views=views)
    return slots.fit(DIGITS.x_train[:600], DIGITS.y_train[:600], backbone=backbone, config=config)[0]


@pytest.fixture(scope="module")
def mirrored():
    return fitted("pixels", views="flip")


@pytest.fixture(scope="module")
def network():
    return fitted("lipschitz", epochs=6, widths=[16], depth=1, hidden=24)


def features(model, x):
    """Features of every view of float images, as the model computes them; a gradient flows through."""
    seen = model.views(x.view(-1, *SHAPE).float())
    return model.backbone(seen.flatten(0, 1)).unflatten(0, seen.shape[:2])


def attacked(model, x, labels, sizes, norm, box):
    """Images moved inside their balls, up the best cosine of another label less the best of their own; all visited."""
    mine = model.head.labels == torch.from_numpy(labels)[:, None]
    weights, size = normalize(model.head.weights.detach()), torch.from_numpy(sizes)[:, None]
    moved = x + 0.1 * size * torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).double().sign() / 8
    for _ in range(10):
        moved = (moved if box is None else moved.clamp(*box)).detach().requires_grad_()
        yield moved.detach()
        scores = (normalize(features(model, moved)) @ weights.T).amax(1)
        lead = scores.masked_fill(mine, -2).amax(1) - scores.masked_fill(~mine, -2).amax(1)
        [way] = torch.autograd.grad(lead.sum(), moved)
        way = way.sign() if norm == "linf" else normalize(way)
        change = (moved + 0.3 * size * way - x).detach()
        if norm == "linf":
            change = change.clamp(-size, size)
        else:
            change = change * (size / change.norm(dim=1, keepdim=True).clamp_min(1e-12)).clamp(max=1)
        moved = x + change


@pytest.mark.parametrize(
    ("kind", "norm"), [("mirrored", "l2"), ("mirrored", "linf"), ("network", "l2"), ("network", "linf")]
)
def test_no_attack_inside_changes_what_is_certified(kind, norm, request):
    model = request.getfixturevalue(kind)
    found = certify(model, DIGITS.x_test[:24], norm=norm)
    x = torch.from_numpy(DIGITS.x_test[:24].reshape(24, -1)).double() / 255
    labels, box = found.prediction.labels, (0, 1) if kind == "mirrored" else None
    assert (labels == model.predict(DIGITS.x_test[:24]).labels).all()
    for name, radii in (("label", found.radii), ("match", found.matched_radii), ("vouch", found.vouched_radii)):
        some = radii > 0
        assert some.mean() > 0.3
        changed = 0
        for share in (0.9999, 20.0) if name == "label" else (0.9999,):
            size = np.minimum(radii[some], 2.0) * share
            for points in attacked(model, x[some], labels[some], size, norm, box):
                answers = model.head.predict(features(model, points).detach())
                same = answers.labels == labels[some]
                held = {"label": same, "match": same & answers.matched, "vouch": same | ~answers.matched}[name]
                if share < 1:
                    assert held.all()
                changed += (~held).sum()
        assert changed > 0 or name != "label"  # farther out the attack succeeds


def test_virtual_slots_are_views(mirrored):
    orders = view_orders(mirrored.views, SHAPE)
    x = torch.from_numpy(DIGITS.x_test[:20].reshape(20, -1)).double() / 255
    seen = mirrored.views(x.view(-1, *SHAPE)).flatten(2)
    assert torch.equal(x[:, orders], seen)
    caps = mirrored.head.caps()
    virtual = virtual_caps(caps, orders)
    for name in ("weights", "centres"):  # but for the order of the sums
        by_view = seen @ getattr(caps, name).double().T
        torch.testing.assert_close(by_view.flatten(1), x @ getattr(virtual, name).double().T, rtol=0, atol=1e-13)
    plain = pooled_slots(mirrored.head)
    assert virtual_slots(plain, orders).loss_of_pooling == plain.loss_of_pooling > 0
    alone = matched_radii(x, torch.from_numpy(mirrored.predict(DIGITS.x_test[:20]).labels), virtual)
    assert (alone.stays > 0).any()


@pytest.mark.parametrize(
    ("views", "kept"),
    [("none", 1), ("flip", 2), ("shift1", None), ("flip*shift1", None), ("rotate9", None), ("zoom5", None)],
)
def test_views_that_change_more_than_the_order_are_told(views, kept):
    found = view_orders(parse_views(views), (3, 5, 4))
    assert (None if found is None else len(found)) == kept


def test_a_net_moves_features_no_farther_than_it_says(network):
    net = network.backbone.double()
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(50, *SHAPE, generator=generator, dtype=torch.float64)
    jacobians = torch.func.vmap(torch.func.jacrev(lambda one: net(one[None])[0]))(x).flatten(2)
    largest = torch.linalg.matrix_norm(jacobians, 2).max()
    assert 0.5 < largest <= net.lipschitz < 1.001
    for size in (1e-3, 0.1, 3.0):
        y = x + size * torch.randn(x.shape, generator=generator, dtype=torch.float64)
        moved = (net(x) - net(y)).norm(dim=1)
        assert (moved <= net.lipschitz * (x - y).flatten(1).norm(dim=1)).all()
    exact = net(x)
    off = (network.backbone.float()(x.float()).double() - exact).norm(dim=1)
    assert (off < 1e-6 * x.flatten(1).norm(dim=1)).all()  # a tenth of what certificates take off


def test_a_reach_is_the_bound_it_states():
    reach = Reach(2.0, np.array([3.0]), 16)
    assert reach.of_inputs(np.array([1.0]), "l2")[0] == pytest.approx((1 - 6e-5) / (2 + 1e-5))
    assert reach.of_inputs(np.array([1.0]), "linf")[0] == pytest.approx((1 - 6e-5) / (2 + 1e-5) / 4)
    assert reach.of_inputs(np.array([1e-6]), "l2")[0] == 0


def test_features_of_a_gpu_are_refused(network):
    elsewhere = copy.deepcopy(network).to("meta")
    with pytest.raises(UsageError, match="`model` must lie on the CPU to be certified behind a backbone, got meta"):
        certify(elsewhere, DIGITS.x_test[:2])


def test_a_box_has_no_meaning_behind_a_network(network):
    with pytest.raises(UsageError, match="`box` must be left out behind a backbone, got one"):
        certify(network, DIGITS.x_test[:2], box=(0, 1))
    found = certify(network, DIGITS.x_test[:5], method="dual")
    assert (found.nearest_radii >= certify(network, DIGITS.x_test[:5]).nearest_radii * (1 - 1e-9)).all()
    assert found.counterfactuals is None
