import io
from pathlib import Path

import pytest
import torch
from torch import nn

from slots.clustering.competitive import learn_slots
from slots.clustering.slot_clusters import ClusterConfig
from slots.errors import DataError, EmptyHeadError, UsageError
from slots.head.similarities import normalize, similarity
from slots.layers.layerwise import PooledFeatures, fit_layers, random_patches
from slots.layers.slot_conv import SlotConv2d
from slots.layers.whitening import PatchWhitening

IMAGES = torch.randint(256, (40, 3, 12, 12), generator=torch.Generator().manual_seed(3), dtype=torch.uint8)


def all_patches(maps, side, stride=1):
    """Each patch of each map, one a row, cut out one by one."""
    height, width = maps.shape[2:]
    rows = [
        maps[n, :, top : top + side, left : left + side].flatten()
        for n in range(len(maps))
        for top in range(0, height - side + 1, stride)
        for left in range(0, width - side + 1, stride)
    ]
    return torch.stack(rows)


def by_patch(maps):
    """(batch, channel, rows, columns) as (patch, channel), in the order of `all_patches`."""
    return maps.movedim(1, -1).flatten(0, 2)


def learned(side=3, stride=1, channels=2, **options):
    """A layer that has learned from noise, and maps for it."""
    config = ClusterConfig(
        share=0.1, metric=options.pop("metric", "cosine"), normalized=options.pop("batch", False), batch_size=200
    )
    layer = SlotConv2d(side, stride=stride, config=config, **options)
    patches = torch.randn(600, channels * side * side) * 2
    layer.learn(patches)
    return layer, torch.randn(3, channels, 8, 9) * 2, patches


class TestSlotConv:
    @pytest.mark.parametrize("metric", ["cosine", "l2"])
    @pytest.mark.parametrize(("side", "stride"), [(1, 1), (3, 1), (4, 3)])
    def test_scores_are_those_of_each_patch(self, metric, side, stride):
        layer, maps, _ = learned(side, stride, metric=metric)
        expected = similarity(all_patches(maps, side, stride), layer.weights.flatten(1), metric=metric)
        torch.testing.assert_close(by_patch(layer.scores(maps)), expected, atol=1e-4, rtol=1e-4)

    @pytest.mark.parametrize("metric", ["cosine", "l2"])
    @pytest.mark.parametrize("normalized", [False, True])
    def test_encodings_are_the_literal_ones(self, metric, normalized):
        layer, maps, _ = learned(metric=metric, normalized=normalized)
        scores = by_patch(layer.scores(maps)).double()
        mean, deviation = layer.mean.double(), layer.deviation.double()
        limits = layer.thresholds.double()
        if normalized:
            scores, limits = (scores - mean) / deviation, (limits - mean) / deviation
        rooted = -(-scores).sqrt() if metric == "l2" and not normalized else scores
        for encoding, rows in [("scores", scores), ("threshold", scores), ("triangle", rooted), ("winner", scores)]:
            layer.encoding = encoding
            got = by_patch(layer(maps))
            for row, found in zip(rows.tolist(), got.tolist(), strict=True):
                average = sum(row) / len(row)
                wanted = {
                    "scores": row,
                    "threshold": [max(0.0, s - t) for s, t in zip(row, limits.tolist(), strict=True)],
                    "triangle": [max(0.0, s - average) for s in row],
                    "winner": [float(k == row.index(max(row))) for k in range(len(row))],
                }[encoding]
                assert found == pytest.approx(wanted, abs=1e-4)

    def test_statistics_are_those_of_the_clusters(self):
        layer, _, patches = learned(batch=True)
        found = learn_slots(patches, layer.config)
        assert layer.normalized
        assert layer.n_slots == found.n_slots
        torch.testing.assert_close(layer.weights.flatten(1), found.weights)
        for name in ("thresholds", "mean", "deviation", "wins"):
            torch.testing.assert_close(getattr(layer, name), getattr(found, name))

    @pytest.mark.parametrize("metric", ["cosine", "l2"])
    def test_a_share_of_the_patches_passes_the_threshold(self, metric):
        layer, _, patches = learned(encoding="threshold", share=0.3, metric=metric)
        active = layer(patches.reshape(-1, 2, 3, 3)) > 0
        assert active.double().mean(0).flatten().tolist() == pytest.approx([0.3] * layer.n_slots, abs=0.005)

    def test_a_blank_patch_scores_zero_under_cosine(self):
        layer, maps, _ = learned()
        assert layer.scores(torch.zeros_like(maps)).abs().max() == 0

    @pytest.mark.parametrize("metric", ["cosine", "l2"])
    def test_gradients_reach_weights_and_maps_and_are_finite(self, metric):
        layer, maps, _ = learned(metric=metric)
        maps[0] = 0
        maps[1, :, :3, :3] = layer.weights[0].detach()  # a distance of 0
        maps.requires_grad_()
        layer(maps).sum().backward()
        assert bool(layer.weights.grad.isfinite().all())
        assert bool(maps.grad.isfinite().all())
        assert float(layer.weights.grad.abs().sum()) > 0

    def test_slots_of_another_number_load(self):
        layer, maps, _ = learned()
        stored = io.BytesIO()
        torch.save(layer.state_dict(), stored)
        stored.seek(0)
        fresh = SlotConv2d(3, config=layer.config)
        fresh.load_state_dict(torch.load(stored, weights_only=True))
        assert fresh.n_slots == layer.n_slots > 0
        assert torch.equal(fresh(maps), layer(maps))

    def test_a_state_of_another_patch_size_does_not_load(self):
        with pytest.raises(RuntimeError, match="size mismatch for weights"):
            SlotConv2d(2).load_state_dict(learned()[0].state_dict())

    def test_says_its_sizes(self):
        assert "slots=0, kernel_size=5, stride=2, metric=cosine" in repr(SlotConv2d(5, stride=2))

    def test_in_double_precision(self):
        layer, maps, _ = learned()
        expected = layer(maps)
        torch.testing.assert_close(layer.double()(maps.double()).float(), expected, atol=1e-5, rtol=1e-5)


class TestWhitening:
    @pytest.mark.parametrize("contrast", [None, 10.0])
    @pytest.mark.parametrize("stride", [1, 2])
    def test_is_the_literal_one(self, contrast, stride):
        maps = IMAGES.float()
        layer = PatchWhitening(3, stride=stride, contrast=contrast, smoothing=0.1)
        patches = all_patches(maps, 3)
        layer.learn(patches)

        def contrasted(rows):
            rows = rows.double()
            if contrast is None:
                return rows
            centred = rows - rows.mean(1, keepdim=True)
            return centred / (centred.square().mean(1, keepdim=True) + contrast).sqrt()

        rows = contrasted(patches)
        covariance = torch.cov(rows.T, correction=0)
        values, vectors = torch.linalg.eigh(covariance)
        whitening = vectors @ torch.diag((values + 0.1).rsqrt()) @ vectors.T
        expected = (contrasted(all_patches(maps, 3, stride)) - rows.mean(0)) @ whitening
        torch.testing.assert_close(by_patch(layer(maps)).double(), expected, atol=2e-3, rtol=1e-3)

    def test_decorrelates(self):
        layer = PatchWhitening(2, contrast=None, smoothing=1e-6, relative=True)
        maps = torch.randn(30, 3, 9, 9).cumsum(2)
        layer.learn(all_patches(maps, 2))
        got = torch.cov(by_patch(layer(maps)).T)
        torch.testing.assert_close(got, torch.eye(12), atol=1e-2, rtol=0)

    def test_relative_smoothing_does_not_depend_on_the_unit(self):
        maps = torch.randn(20, 1, 6, 6)
        out = []
        for unit in (1.0, 100.0):
            layer = PatchWhitening(2, contrast=None, smoothing=0.5, relative=True)
            layer.learn(all_patches(unit * maps, 2))
            out.append(layer(unit * maps))
        torch.testing.assert_close(*out, atol=1e-4, rtol=1e-4)

    def test_loads(self):
        layer = PatchWhitening(3)
        layer.learn(all_patches(IMAGES.float(), 3))
        fresh = PatchWhitening(3)
        fresh.load_state_dict(layer.state_dict())
        assert torch.equal(fresh(IMAGES.float()), layer(IMAGES.float()))


class TestPatches:
    def test_are_patches_of_the_map_they_should_come_from(self):
        maps = torch.arange(5.0)[:, None, None, None] * 1000 + torch.arange(2 * 6 * 7.0).reshape(2, 6, 7)
        got = random_patches(maps, 3, 50)
        assert got.shape == (50, 18)
        known = {tuple(row) for row in all_patches(maps, 3).tolist()}
        assert all(tuple(row) in known for row in got.tolist())
        assert torch.bincount((got[:, 0] / 1000).floor().long()).tolist() == [10] * 5

    def test_every_place_is_drawn(self):
        got = random_patches(torch.arange(12.0).reshape(1, 1, 3, 4), 2, 300)
        assert sorted(got[:, 0].unique().tolist()) == [0, 1, 2, 4, 5, 6]


class TestFitLayers:
    def stack(self):
        config = ClusterConfig(share=0.1, batch_size=100, min_wins=2)
        return [PatchWhitening(3), SlotConv2d(1, config=config), nn.AvgPool2d(2), SlotConv2d(2, config=config)]

    def test_each_layer_learns_on_what_lies_below(self):
        seen = {}

        class Watched(SlotConv2d):
            def learn(self, patches):
                seen["patches"] = patches
                super().learn(patches)

        layers = [*self.stack()[:3], Watched(2, config=ClusterConfig(share=0.1, batch_size=100))]
        stack = fit_layers(IMAGES, layers, n_patches=203, patches_per_image=7, batch_size=8)
        assert seen["patches"].shape == (203, 4 * stack[1].n_slots)
        below = all_patches(stack[:3](IMAGES.float()).detach(), 2)
        assert float(torch.cdist(seen["patches"].double(), below.double()).amin(1).max()) < 1e-3

    def test_equal_seeds_give_equal_layers(self):
        one, two, other = (fit_layers(IMAGES, self.stack(), n_patches=400, seed=s) for s in (0, 0, 1))
        assert torch.equal(one(IMAGES.float()), two(IMAGES.float()))
        assert not torch.equal(one[0].matrix, other[0].matrix)

    def test_layers_learned_before_stay(self):
        below = fit_layers(IMAGES, self.stack()[:2], n_patches=300)
        before = below(IMAGES.float())
        more = fit_layers(IMAGES, [*below, *self.stack()[2:]], n_patches=300, seed=9)
        assert torch.equal(more[:2](IMAGES.float()), before)
        assert more[3].n_slots > 0

    def test_a_stack_loads_into_layers_without_slots(self):
        stack = fit_layers(IMAGES, self.stack(), n_patches=400)
        fresh = nn.Sequential(*self.stack())
        fresh.load_state_dict(stack.state_dict())
        assert torch.equal(fresh(IMAGES.float()), stack(IMAGES.float()))

    def test_runs_in_evaluation_mode_and_puts_modes_back(self):
        norm = nn.BatchNorm2d(3)
        stack = fit_layers(IMAGES, [norm, SlotConv2d(2, config=ClusterConfig(share=0.2))], n_patches=100)
        assert int(norm.num_batches_tracked) == 0
        assert all(module.training for module in stack.modules())

    def test_progress_is_told(self):
        told = []
        fit_layers(IMAGES, self.stack(), n_patches=200, progress=lambda *what: told.append(what))
        assert told == [("layer 1 of 4", 0.0), ("layer 2 of 4", 0.25), ("layer 4 of 4", 0.75)]


class TestPooled:
    def test_features_are_means_over_quadrants_of_each_slot_layer(self):
        config = ClusterConfig(share=0.1, batch_size=100)
        stack = fit_layers(
            IMAGES, [SlotConv2d(3, config=config), nn.MaxPool2d(2), SlotConv2d(2, config=config)], n_patches=300
        )
        model = PooledFeatures(stack)
        got = model(IMAGES)
        first = stack[0](IMAGES.float())
        second = stack(IMAGES.float())
        assert got.shape == (40, model.feature_dim) == (40, 4 * (first.shape[1] + second.shape[1]))
        literal = torch.stack([first[:, :, a : a + 5, b : b + 5].mean((2, 3)) for a in (0, 5) for b in (0, 5)], 2)
        torch.testing.assert_close(got[:, : 4 * first.shape[1]], literal.flatten(1))
        literal = torch.stack([second[:, :, a : a + 2, b : b + 2].mean((2, 3)) for a in (0, 2) for b in (0, 2)], 2)
        torch.testing.assert_close(got[:, 4 * first.shape[1] :], literal.flatten(1))

    def test_a_head_takes_them(self):
        from slots import IncrementalNeuralHashing

        config = ClusterConfig(share=0.2, batch_size=100)
        model = PooledFeatures(fit_layers(IMAGES, [SlotConv2d(3, config=config)], n_patches=300), grid=1)
        head = IncrementalNeuralHashing(model.feature_dim)
        with torch.no_grad():
            head.add_slots(model(IMAGES[:4]), torch.tensor([0, 1, 2, 3]))
            assert head.predict(model(IMAGES[:4])).labels.tolist() == [0, 1, 2, 3]


class TestRefusals:
    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: SlotConv2d(0), r"`kernel_size` and `stride` must be >= 1, got 0 and 1. Pass"),
            (lambda: PatchWhitening(2, stride=0), r"`kernel_size` and `stride` must be >= 1, got 2 and 0. Pass"),
            (lambda: PatchWhitening(2, contrast=0.0), r"`contrast` and `smoothing` must be > 0, got 0.0 and 0.1. Pass"),
            (lambda: PatchWhitening(2, smoothing=0.0), r"`contrast` and `smoothing` must be > 0, got 10.0 and 0.0."),
            (lambda: SlotConv2d(1, encoding="max"), r"`encoding` must be one of scores, .*, got 'max'. Try 'triangle'"),
            (lambda: SlotConv2d(1, share=0.0), r"`share` must lie in \(0, 1\), got 0.0. 0.2 lets"),
            (lambda: PooledFeatures(nn.Sequential(nn.ReLU())), r"`layers` must hold a SlotConv2d, got none. Their"),
            (lambda: PooledFeatures(nn.Sequential(SlotConv2d(1)), grid=0), r"`grid` must be >= 1, got 0. 2 averages"),
            (lambda: fit_layers(IMAGES, [], n_patches=1), r"`n_patches` must be >= 2, got 1. Pass"),
            (lambda: fit_layers(IMAGES, [], patches_per_image=0), r"`patches_per_image` must be >= 1, got 0. Pass"),
            (lambda: fit_layers(IMAGES, [], batch_size=0), r"`batch_size` must be >= 1, got 0. Pass"),
            (lambda: SlotConv2d(1, config=ClusterConfig(metric="l2")).take(learn_slots(torch.randn(9, 2))),
             r"`slots` must have metric='l2', got 'cosine'. Build"),
        ],
    )  # fmt: skip
    def test_of_options(self, make, message):
        with pytest.raises(UsageError, match=message):
            make()

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: fit_layers(IMAGES[0], []), r"`images` must have shape .* got \(3, 12, 12\). Move"),
            (lambda: fit_layers(IMAGES[:0], []), r"`images` must have shape .* got \(0, 3, 12, 12\). Move"),
            (lambda: fit_layers(IMAGES, [SlotConv2d(13)]), r"`maps` must have sides >= 13, got \(12, 12\). Use"),
            (lambda: SlotConv2d(3).learn(torch.zeros(5, 10)), r"`patches` must have shape .* 9\), got \(5, 10\). Flat"),
            (lambda: PatchWhitening(2).learn(torch.zeros(4)), r"`patches` must have shape .* 4\), got \(4,\). Flatten"),
        ],
    )
    def test_of_data(self, make, message):
        with pytest.raises(DataError, match=message):
            make()

    @pytest.mark.parametrize("layer", [SlotConv2d(2), PatchWhitening(2)])
    def test_of_layers_without_slots(self, layer):
        with pytest.raises(EmptyHeadError, match=r"This \w+ has learned nothing yet. Call learn or fit_layers"):
            layer(torch.zeros(1, 3, 4, 4))

    @pytest.mark.parametrize("shape", [(1, 3, 8, 8), (1, 2, 2, 8), (2, 8, 8)])
    def test_of_maps_of_another_form(self, shape):
        with pytest.raises(ValueError, match=r"`maps` must have shape \(batch, 2, height, width\) and sides >= 3, got"):
            learned()[0](torch.zeros(shape))


def test_scores_of_the_clusters_and_of_the_layer_agree():
    patches = torch.randn(400, 12)
    found = learn_slots(patches, ClusterConfig(share=0.1, normalized=True, batch_size=100))
    layer = SlotConv2d(2, config=ClusterConfig(normalized=True), encoding="scores")
    layer.take(found)
    torch.testing.assert_close(layer(patches.reshape(-1, 3, 2, 2)).flatten(1), found.scores(patches), atol=1e-4, rtol=0)
    torch.testing.assert_close(normalize(found.weights), found.weights)


def test_the_example_of_the_page_runs(tmp_path, monkeypatch):
    page = (Path(__file__).parents[3] / "docs" / "layerwise.md").read_text()
    example = page.split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(example, "docs/layerwise.md", "exec"), names)
    layers, features = names["layers"], names["features"]
    assert features.shape == (60, 4 * (layers[1].n_slots + layers[4].n_slots))
    assert int(names["clusters"].owners.min()) >= 0
    assert torch.load("layers.pt", weights_only=True).keys() == layers.state_dict().keys()
