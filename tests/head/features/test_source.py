"""What a source gives of the inputs as they are is what it gives of their first view, and other views are not made."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from support.nets import TinyNet

import backbones
from slots.features.featurizer import Featurizer
from slots.features.preprocessing import Preprocessing
from slots.features.source import FeatureSource, first_views
from slots.features.views import Views, parse_views
from slots.features.whitening import ClassSums, Whitening


@dataclass(frozen=True)
class Counted(Views):
    """Views that are counted."""

    made: list

    def __call__(self, x):
        self.made.append(len(x))
        return super().__call__(x)


def source_of(backbone, *, views="flip*shift1", keep=False, whitening=None, n=7):
    x = np.random.default_rng(0).integers(0, 256, (n, 8, 8), np.uint8)
    plain = parse_views(views)
    featurizer = Featurizer(
        Preprocessing("images", (1, 8, 8), (0.4,), (0.3,)),
        Counted(plain.spec, plain.steps, []),
        backbone.eval(),
        feature_dim=64 if whitening is None else whitening.width,
        whitening=whitening,
    ).eval()
    return FeatureSource(featurizer, x, keep=keep)


def pixels():
    return backbones.build("pixels", input_shape=(1, 8, 8))


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("rows", [slice(1, 5), np.array([6, 0, 0, 3]), np.array([], np.int64)], ids=str)
def test_inputs_as_they_are_are_the_first_view_bit_for_bit(keep, rows):
    source = source_of(pixels(), keep=keep)
    assert torch.equal(source.plain(rows), source(rows)[:, 0])
    assert torch.equal(first_views(source), source(slice(0, 7))[:, 0])


def test_other_views_are_not_made_where_nothing_comes_of_them():
    source = source_of(pixels())
    source.plain(slice(0, 4))
    first_views(source)
    assert source.featurizer.views.made == []
    source(slice(0, 4))
    assert source.featurizer.views.made == [4]


def test_a_network_and_a_whitening_round_as_they_do_for_all_views():
    """Their products of several rows may differ from those of one in the last bit."""
    rows = np.random.default_rng(1).normal(size=(200, 64)).astype(np.float32)
    sums = ClassSums.of(torch.from_numpy(rows), torch.arange(200) % 4)
    whitening = Whitening.of(sums, shrinkage=0.5)
    for source in (source_of(TinyNet()), source_of(pixels(), whitening=whitening)):
        assert torch.equal(source.plain(slice(0, 3)), source(slice(0, 3))[:, 0])
        assert source.featurizer.views.made == [3, 3]
