"""Parts are training patches, chosen as the slow way would choose them."""

import math

import numpy as np
import pytest
import torch
from support.reference_parts import slow_multi_cover

import backbones
from slots.errors import DataError, UsageError
from slots.parts import PartConfig, choose_parts, fit_parts
from slots.parts.backbone import check_parts_backbone
from slots.parts.choosing import _best_places
from slots.training.config import TrainConfig


@pytest.fixture
def pictures():
    """Images with one of three patches each, at a place of chance; a patch says the class."""
    rng = np.random.default_rng(0)
    stamps = rng.random((3, 4, 4)).astype(np.float32)
    labels = np.repeat(np.arange(3), 12)
    images = 0.02 * rng.random((36, 1, 12, 12)).astype(np.float32)
    for image, label in zip(images, labels, strict=True):
        top, left = rng.integers(0, 8, 2)
        image[0, top : top + 4, left : left + 4] += stamps[label]
    return torch.from_numpy(images), labels


def net_for(images, where="cells"):
    torch.manual_seed(0)
    net = backbones.build("parts", input_shape=(1, 12, 12), channels=8, width=12, receptive_field=5, where=where)
    for _ in range(20):
        net.train()(images)  # statistics of their own
    return net.eval()


@pytest.fixture
def net(pictures):
    return net_for(pictures[0])


def choose(net, pictures, config, **more):
    images, labels = pictures
    return choose_parts(net, lambda ids: images[ids], labels, config, **more)


@pytest.mark.parametrize(
    ("where", "elsewhere"),
    [("cells", 0.0), ("cells", 0.3), ("cells", 1.0), ("anywhere", 0.2), ("anywhere", 0.5), ("anywhere", 1.0)],
)
@pytest.mark.parametrize("times", [1, 3])
def test_the_choice_is_that_of_the_slow_way(pictures, where, elsewhere, times):
    """In cells a part is found in each that shows it; in one picture it is found once, where it is most alike."""
    images, labels = pictures
    net = net_for(images, where)
    config = PartConfig(elsewhere=elsewhere, times=times, likeness=0.7, candidates=60, quiet=0.3)
    with torch.no_grad():
        maps = net.locations(images).double()
    chosen = choose(net, pictures, config)
    lengths = maps.norm(dim=1)[torch.from_numpy(chosen.examples)]
    floor = np.quantile(lengths.float().numpy(), config.quiet)
    loud = [(b, p) for b in range(36) for p in range(64) if lengths[b].flatten()[p] >= floor]
    drawn = torch.randperm(len(loud), generator=torch.Generator().manual_seed(0))[:60]
    fires = np.zeros((60, 36, 9 if where == "cells" else 64), bool)
    for k, at in enumerate(drawn.tolist()):
        example, place = loud[at]
        vector = maps[chosen.examples[example], :, place // 8, place % 8]
        for b in range(36):
            image = maps[chosen.examples[b]]
            cosines = (image * vector[:, None, None]).sum(0) / image.norm(dim=0) / vector.norm()
            cosines[lengths[b] < floor] = 0
            if where == "anywhere":
                fires[k, b, cosines.flatten().argmax()] = cosines.max() >= 0.7
                continue
            for cell in range(9):
                row, column = divmod(cell, 3)
                fires[k, b, cell] = cosines[2 * row : 2 * row + 4, 2 * column : 2 * column + 4].max() >= 0.7
    of = labels[chosen.examples]
    shown = fires if where == "cells" else fires.any(2, keepdims=True)
    shares = np.stack([shown[:, of != label].mean(1) for label in range(3)], 1)
    speaks = fires & (shares[:, of] <= elsewhere)
    vectors = np.stack([maps[chosen.examples[b], :, p // 8, p % 8].numpy() for b, p in (loud[i] for i in drawn)])
    vectors = vectors.astype(np.float64) / np.linalg.norm(vectors, axis=1, keepdims=True)
    picks, covered = slow_multi_cover(speaks, times, 100, 1, vectors @ vectors.T, config.apart)
    sources = [loud[drawn[pick]] for pick in picks]
    assert [tuple(row) for row in chosen.sources.tolist()] == [
        (int(chosen.examples[b]), place // 8, place % 8) for b, place in sources
    ]
    assert chosen.covered.tolist() == covered
    assert chosen.served == np.mean(np.array(covered) >= times)


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (3, 8), (20, 11)])
def test_places_of_large_maps_are_told_apart_on_a_grid(rows, columns):
    maps = torch.rand(50, 1, rows, columns, generator=torch.Generator().manual_seed(0))
    found = _best_places(maps)
    down, across = min(rows, 8), min(columns, 8)
    assert found.shape == (50, down * across)
    for one, places in zip(maps[:, 0].tolist(), found.tolist(), strict=True):
        row, column = max(((r, c) for r in range(rows) for c in range(columns)), key=lambda at: one[at[0]][at[1]])
        assert [at for at, is_there in enumerate(places) if is_there] == [
            math.floor(row * down / rows) * across + math.floor(column * across / columns)
        ]


def test_parts_are_patches_of_training_images(net, pictures):
    images, _ = pictures
    with torch.no_grad():
        maps = net.locations(images)
    chosen = choose(net, pictures, PartConfig(max_parts=5, likeness=0.6, elsewhere=1.0))
    assert 1 <= net.n_parts == len(chosen.sources) <= 5
    assert net.options["threshold"] == PartConfig().threshold
    for vector, patch, (example, row, column) in zip(net.vectors, net.patches, chosen.sources.tolist(), strict=True):
        assert torch.equal(patch, images[example, :, row : row + 5, column : column + 5])
        there = maps[example, :, row, column]
        assert torch.allclose(vector, there / there.norm(), atol=1e-6)
        assert vector.norm().item() == pytest.approx(1.0, abs=1e-5)


def test_no_two_parts_look_the_same(net, pictures):
    nearest = {}
    for apart in (1.0, 0.95, 0.6):
        many = PartConfig(times=9, likeness=0.97, elsewhere=1.0, apart=apart)
        choose(net, pictures, many)
        assert net.n_parts > 1
        nearest[apart] = float((net.vectors @ net.vectors.T).fill_diagonal_(0.0).max())
    assert nearest[1.0] > 0.95 >= nearest[0.95] > 0.6 >= nearest[0.6]


def test_only_the_examples_that_may_be_looked_at_are(net, pictures):
    among = np.arange(0, 36, 3)
    chosen = choose(net, pictures, PartConfig(likeness=0.6, elsewhere=1.0), among=among)
    assert sorted(chosen.examples) == among.tolist()
    assert set(chosen.sources[:, 0]) <= set(among)


def test_the_same_seed_chooses_the_same_parts(net, pictures):
    config = PartConfig(candidates=20, examples=30, likeness=0.6, elsewhere=1.0)
    first = choose(net, pictures, config).sources
    assert np.array_equal(first, choose(net, pictures, config).sources)


def test_what_shows_nothing_has_no_parts(net, pictures):
    with pytest.raises(DataError, match="must show something"):
        choose(net, (torch.zeros(36, 1, 12, 12), pictures[1]), PartConfig())
    with pytest.raises(DataError, match="must speak for a class"):
        choose(net, (pictures[0][:1].expand(36, -1, -1, -1), pictures[1]), PartConfig(elsewhere=0.0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_parts": 0}, "`max_parts` must be >= 1"),
        ({"times": 0}, "`times` must be >= 1"),
        ({"features_per_slot": 0}, "`features_per_slot` must be >= 1, got 0"),
        ({"slots_per_class": -1}, "`slots_per_class` must be >= 1, got -1"),
        ({"threshold": 1.0}, "`threshold` must lie in"),
        ({"likeness": 1.0}, "`likeness` must lie in"),
        ({"elsewhere": -0.1}, "`elsewhere` must lie in"),
        ({"quiet": 1.0}, "`quiet` in"),
    ],
)
def test_settings_out_of_range_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        PartConfig(**options)


def test_other_backbones_and_views_are_refused():
    with pytest.raises(UsageError, match="`backbone` must have parts, got Pixels"):
        check_parts_backbone(backbones.build("pixels", input_shape=(1, 8, 8)))
    net = backbones.build("parts", input_shape=(1, 8, 8), channels=4, width=4)
    with pytest.raises(UsageError, match="`views` must be none"):
        fit_parts(np.zeros((4, 8, 8), np.uint8), [0, 0, 1, 1], backbone=net, config=TrainConfig(views="flip"))
