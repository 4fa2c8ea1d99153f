import re
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support.pages import asked_for, parse
from torch import nn

import backbones
from protocols.app.fit import fit_and_save
from protocols.data.dataset import Dataset
from protocols.data.loading import load_data
from protocols.pages import cards as report_cards
from protocols.pages import environment, fit_report
from protocols.pages.pictures import diverging
from protocols.recipes.planning import plan
from protocols.summaries.evaluation import evaluate
from protocols.summaries.fit import NOT_MEASURED, FitSummary, Looked, Vouched
from slots.errors import StorageError
from slots.features.preprocessing import Preprocessing
from slots.head.hashing import IncrementalNeuralHashing
from slots.model.slot_model import SlotModel
from slots.training.config import TrainConfig
from slots.training.defaults import Try
from slots.training.fitting import fit


def summary_of(model, data, prediction, **changes):
    measured = evaluate(prediction, data.y_test[data.y_test >= 0])
    summary = FitSummary(
        schema=1,
        command="slots fit --data toy",
        data=data.name,
        data_digest=data.digest,
        backbone=model.backbone_spec[0] if model.backbone_spec else "none",
        n_slots=model.head.n_slots,
        slots_per_class={},
        train_accuracy=1.0,
        train_matched=1.0,
        train_precision=1.0,
        test_accuracy=measured.accuracy,
        test_matched=measured.matched,
        test_ambiguous=measured.ambiguous,
        test_accuracy_matched=measured.accuracy_matched,
        contradictions=[],
        interrupted=False,
        elapsed_s=1.25,
        epochs=2,
        seed=3,
        device="cpu",
        model="toy",
        report="toy/report.html",
        versions={"python": "3.12.1", "torch": "2.11.0"},
    )
    return replace(summary, **changes)


def page_of(model, data, **changes):
    prediction = model.predict(data.x_test[data.y_test >= 0])
    return parse(fit_report.render(model, data, prediction, summary_of(model, data, prediction, **changes)))


def toy(channels=1, side=6, n_classes=3, n=90, names=None, noise=70, seed=0):
    """Noisy copies of one random image a class; the first two thirds train."""
    random = np.random.default_rng(seed)
    prototypes = random.integers(0, 256, (n_classes, side, side, channels))
    y = np.arange(n) % n_classes
    x = np.clip(prototypes[y] + random.normal(0, noise, (n, side, side, channels)), 0, 255).astype(np.uint8)
    cut = 2 * n // 3
    names = names or tuple(f"kind {i}" for i in range(n_classes))
    return Dataset("toy", x[:cut], y[:cut], x[cut:], y[cut:], names, "d" * 64)


def rows(data):
    flat = [x.reshape(len(x), -1).astype(np.float32) for x in (data.x_train, data.x_test)]
    return replace(data, x_train=flat[0], x_test=flat[1])


def fitted(data, **changes):
    backbone = None
    if data.kind == "images":
        height, width, channels = data.shape
        backbone = backbones.build("pixels", input_shape=(channels, height, width))
    config = TrainConfig(**({"epochs": 2, "slots_per_class": 3, "batch_size": 30} | changes))
    return fit(data.x_train, data.y_train, backbone=backbone, config=config, class_names=data.class_names)[0]


@pytest.fixture(scope="module")
def digits():
    """A real fit and its page, small enough to be quick and bad enough to have every kind of outcome."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    whole = load_data("digits")
    data = replace(whole, x_train=whole.x_train[:400], y_train=whole.y_train[:400])
    model = fitted(data, slots_per_class=4, batch_size=100)
    return model, data, model.predict(data.x_test), page_of(model, data)


class TestPage:
    def test_all_sections_are_there_in_order(self, digits):
        sections = [section.attributes.get("id") for section in digits[3].all("section")]
        named = [name for name in sections if name]
        assert named == ["highlights", "classes", "confusion", "wrong", "unmatched", "gallery", "facts"]

    def test_it_asks_nobody_for_anything(self, digits):
        model, data, prediction, page = digits
        ids = {
            e.attributes["id"] for tag in ("section", "main", "li", "tr") for e in page.all(tag) if "id" in e.attributes
        }
        for address in asked_for(page):
            assert address.startswith("data:") or address.removeprefix("#") in ids
        text = fit_report.render(model, data, prediction, summary_of(model, data, prediction))
        text = re.sub("data:image/png;base64,[A-Za-z0-9+/=]*", "", text)
        for word in ("http:", "https:", "//", "@import", "url(", "<script", "<iframe", "<object", "onload"):
            assert word not in text

    def test_every_picture_has_words_and_its_own_shape(self, digits):
        pictures = digits[3].all("img")
        assert len(pictures) > 200
        for picture in pictures:
            height, width = picture.pixels().shape[:2]
            assert picture.attributes["alt"].strip()
            assert int(picture.attributes["width"]) * height == int(picture.attributes["height"]) * width
            assert int(picture.attributes["width"]) % width == 0

    def test_no_id_twice_and_every_table_has_headers(self, digits):
        page = digits[3]
        ids = [e.attributes["id"] for e in page._walk() if "id" in e.attributes]
        assert len(ids) == len(set(ids))
        for table in page.all("table"):
            assert table.all("th", scope="col")
            assert len(table.all("tbody")[0].all("tr")) == len(table.all("th", scope="row"))

    def test_what_a_match_is_worth_comes_first_and_the_look_behind(self, digits):
        model, data, _, plain = digits
        header = plain.all("header")[0]
        assert header.all("p", cls="vouched")[0].text == NOT_MEASURED
        tries = Try(None, 1, 20.0, 0.81), Try(1.0, 1, 20.0, 0.9), Try(0.3, 4, 10.0, 0.9), Try(0.3, 1, 20.0, 0.7)
        used = {"whitening": 1.0, "slots_per_class": 1, "scale": 20.0, "epochs": 10, "batch_size": 50}
        vouching = Vouched(0.95, 3000, 2480, 2459, shown=True, smaller_by=1.5)
        page = page_of(model, data, vouching=vouching, look=Looked(1234, tries[1], tries, used))
        sentence = "Matched answers are right at 95 % or better on examples that trained nothing: 2,459 of 2,480."
        assert page.all("header")[0].all("p", cls="vouched")[0].text == sentence
        facts = page.by_id("facts").text
        assert facts.index(sentence) < facts.index("right when matched")  # before what is said of the training part
        assert "centring only, one slot a class, scale 20, 10 epochs in batches of 50" in facts
        rows = page.by_id("facts").all("tbody")[0].all("tr")
        assert [row.all("th")[0].text for row in rows] == [
            "centring only, chosen",
            "shrinkage 0.3",
            "none",
            "shrinkage 0.3",
        ]
        assert [row.all("td")[2].text for row in rows] == ["90.00 %", "90.00 %", "81.00 %", "70.00 %"]

    def test_light_dark_print_and_phone(self, digits):
        style = digits[3].all("style")[0].text
        assert "prefers-color-scheme: dark" in style
        assert "@media print" in style
        assert "max-width: 36rem" in style
        assert "image-rendering: pixelated" in style
        assert digits[3].all("meta", name="viewport", content="width=device-width, initial-scale=1")

    def test_the_headline_repeats_the_summary(self, digits):
        model, data, prediction, page = digits
        header = page.all("header")[0]
        assert header.all("h1")[0].text == f"digits remembered as {model.head.n_slots} slots"
        right = prediction.labels == data.y_test
        tiles = {tile.all("dt")[0].text: tile.all("dd")[0].text for tile in header.all("dl")[0].all("div")}
        assert tiles == {
            "test accuracy": f"{100 * right.mean():.2f} %",
            "matched": f"{100 * prediction.matched.mean():.1f} %",
            "right when matched": f"{100 * right[prediction.matched].mean():.2f} %",
            "fitted in": "1.2 s",
        }
        facts = page.by_id("facts").text
        for word in (
            "slots fit --data toy",
            data.digest,
            "seed 3",
            "torch 2.11.0",
            "pixels",
            "none (1 of",
        ):
            assert word in facts


class TestCounts:
    def test_one_card_a_slot_with_its_class(self, digits):
        model, _, _, page = digits
        cards = page.by_id("gallery").all("li", cls="card")
        assert sorted(card.attributes["id"] for card in cards) == sorted(f"slot-{k}" for k in range(model.head.n_slots))
        for card in cards:
            slot = int(card.attributes["id"].removeprefix("slot-"))
            assert card.all("b")[0].text == model.class_name(int(model.head.labels[slot]))
            assert f"matches {int(model.head.hits[slot]):,} in training" in card.text
            seen, right = model.head.held_out[slot].tolist()
            assert (f"held out {right}/{seen}" if seen else "held out: not measured") in card.text

    def test_slots_of_each_class(self, digits):
        model, data, prediction, page = digits
        lines = page.by_id("classes").all("tbody")[0].all("tr")
        assert [int(line.all("td")[0].text) for line in lines] == np.bincount(model.head.labels, minlength=10).tolist()
        assert [int(line.all("td")[1].text) for line in lines] == np.bincount(data.y_test, minlength=10).tolist()
        for label, line in enumerate(lines):
            mine = data.y_test == label
            assert line.all("td")[2].text == f"{100 * prediction.matched[mine].mean():.1f} %"
            assert line.all("td")[3].text == f"{100 * (prediction.labels[mine] == label).mean():.1f} %"

    def test_the_confusion_matrix_counts_every_answer(self, digits):
        _, data, prediction, page = digits
        counted = [[0] * 10 for _ in range(10)]
        for truth, answer in zip(data.y_test, prediction.labels, strict=True):
            counted[truth][answer] += 1
        lines = page.by_id("confusion").all("tbody")[0].all("tr")
        assert [[int(cell.text or 0) for cell in line.all("td")] for line in lines] == counted
        for truth, line in enumerate(lines):
            for answer, cell in enumerate(line.all("td")):
                if counted[truth][answer]:
                    strength = float(cell.attributes["style"].removeprefix("--share:"))
                    share = counted[truth][answer] / sum(counted[truth])
                    expected = share if truth == answer else 0.06 + 0.94 * share**0.5
                    assert strength == pytest.approx(expected, abs=6e-4)

    def test_the_five_outcomes_add_up(self, digits):
        _, data, prediction, page = digits
        counts = [int(item.all("b")[0].text.replace(",", "")) for item in page.all("ul", cls="legend")[0].all("li")]
        right = prediction.labels == data.y_test
        sure = prediction.answers == 2
        torn = prediction.answers == 1
        free = prediction.answers == 0
        assert counts == [
            (sure & right).sum(),
            (sure & ~right).sum(),
            torn.sum(),
            (free & right).sum(),
            (free & ~right).sum(),
        ]
        assert sum(counts) == len(data.y_test)

    def test_wrong_and_unmatched_are_the_right_examples(self, digits):
        _, data, prediction, page = digits
        right = prediction.labels == data.y_test
        wrong = np.flatnonzero(prediction.matched & ~right)
        assert 0 < len(wrong) <= 40
        shown = [int(card.text.split("test example ")[1]) for card in page.by_id("wrong").all("li", cls="card")]
        assert sorted(shown) == wrong.tolist()
        assert (np.diff(prediction.margins[shown]) <= 0).all()
        free = np.flatnonzero(~prediction.matched)
        shown = [int(card.text.split("test example ")[1]) for card in page.by_id("unmatched").all("li", cls="card")]
        assert len(shown) == min(60, len(free))
        assert set(shown) <= set(free.tolist())
        assert right[shown].tolist() == sorted(right[shown].tolist())
        assert f"{len(free)} of 360 test examples" in page.by_id("unmatched").text
        assert f"right for {right[free].sum()} of them" in page.by_id("unmatched").text

    def test_a_wrong_answer_stands_beside_the_slot_that_gave_it(self, digits):
        model, data, prediction, page = digits
        for card in page.by_id("wrong").all("li", cls="card"):
            row = int(card.text.split("test example ")[1])
            slot = prediction.slots[row]
            example, exemplar = (picture.pixels() for picture in card.all("img"))
            np.testing.assert_array_equal(example, data.x_test[row, ..., 0])
            np.testing.assert_array_equal(exemplar, data.x_train[model.head.exemplars[slot, 0], ..., 0])
            assert card.all("b")[0].text == model.class_name(data.y_test[row])
            assert card.all("b")[1].text == model.class_name(prediction.labels[row])
            assert f"slot {slot}" in card.text
            assert f"margin {np.degrees(prediction.margins[row]):.2f}°" in card.text


class TestTemplates:
    def test_of_pixels_it_is_the_weight_itself(self, digits):
        model, _, _, page = digits
        card = page.by_id("slot-2")
        template = next(p for p in card.all("img") if p.attributes["alt"].startswith("Template of slot 2"))
        weight = model.head.weights.detach()[2].numpy().reshape(8, 8)
        np.testing.assert_array_equal(template.pixels(), diverging(weight))

    def test_of_a_net_it_is_the_gradient_at_the_nearest_example(self):
        torch.manual_seed(1)
        data = toy(side=8)
        net = backbones.build("explor", input_shape=(1, 8, 8)).eval()
        config = TrainConfig(epochs=0, slots_per_class=1)
        model = fit(data.x_train, data.y_train, backbone=net, config=config, class_names=data.class_names)[0]
        slot = 1
        x = torch.from_numpy(data.x_train[model.head.exemplars[slot, :1].numpy()]).permute(0, 3, 1, 2) / 255
        x.requires_grad_()
        with backbones.detached_gates(model.backbone):
            (model.backbone(x) @ model.head.weights.detach()[slot]).sum().backward()
        page = page_of(model, data)
        shown = next(p for p in page.by_id(f"slot-{slot}").all("img") if p.attributes["alt"].startswith("Template"))
        difference = shown.pixels().astype(int) - diverging(x.grad[0, 0].numpy())
        assert np.abs(difference).max() <= 4  # one shade, where rounding of the last bit falls the other way

    def test_colours_have_two(self):
        data = toy(channels=3)
        model = fitted(data)
        page = page_of(model, data)
        for card in page.by_id("gallery").all("li", cls="card"):
            words = [p.attributes["alt"].split(" ")[0] for p in card.all("img")][:3]
            assert words == ["Nearest", "Template", "Colours"]
            assert card.all("img")[0].pixels().shape == (6, 6, 3)
        slot = int(page.by_id("gallery").all("li", cls="card")[0].attributes["id"].removeprefix("slot-"))
        total = model.head.weights.detach()[slot].numpy().astype(np.float64).reshape(3, 6, 6).sum(0)
        np.testing.assert_array_equal(page.by_id(f"slot-{slot}").all("img")[1].pixels(), diverging(total))

    def test_a_backbone_without_templates_leaves_them_out(self):
        data = toy()
        model = fit(data.x_train, data.y_train, backbone=nn.Flatten(), config=TrainConfig(epochs=1, slots_per_class=2))[
            0
        ]
        page = page_of(model, data)
        assert not [p for p in page.all("img") if p.attributes["alt"].startswith("Template")]
        assert "template" not in page.by_id("gallery").text
        assert len(page.by_id("gallery").all("li", cls="card")) == model.head.n_slots

    def test_a_slot_that_remembers_no_example_shows_none(self):
        data = toy()
        model = fitted(data)
        model.head.exemplars[1] = -1
        model.head.support_thresholds[1] = -2
        card = page_of(model, data).by_id("slot-1")
        assert card.all("img") == []
        assert "no limit, trained" in card.text

    def test_radii_are_those_of_slots_that_have_one(self):
        data = toy()
        model = fitted(data)
        head = model.head
        mine = (head.labels == 0).nonzero()[:, 0].tolist()
        assert len(mine) == 3
        head.support_thresholds[mine] = torch.tensor([-2.0, 2.0, 0.5])
        page = page_of(model, data)
        cards = [page.by_id(f"slot-{slot}").text for slot in mine]
        assert ["no limit" in cards[0], "never fires" in cards[1], "radius 60.0°" in cards[2]] == [True] * 3
        assert page.by_id("classes").all("tbody")[0].all("tr")[0].all("td")[5].text == "60.0°"

    def test_large_images_are_stored_small(self):
        data = toy(side=60, n=30)
        page = page_of(fitted(data), data)
        assert {max(p.pixels().shape[:2]) for p in page.all("img") if "more of its" not in p.attributes["alt"]} == {48}


class TestOtherData:
    def test_names_are_escaped(self):
        evil = "<script>alert('x')</script>"
        data = replace(toy(names=(evil, '"><img src=x onerror=1>', "&amp;")), name="<b>toy</b>")
        model = fitted(data)
        prediction = model.predict(data.x_test)
        summary = summary_of(model, data, prediction, command="slots fit --data '<i>'")
        text = fit_report.render(model, data, prediction, summary)
        assert "<script" not in text
        assert "<b>toy" not in text
        assert "<i>" not in text
        page = parse(text)
        assert page.by_id("classes").all("th", scope="row")[0].text == evil
        assert page.by_id("classes").all("th", scope="row")[2].text == "&amp;"
        assert all(set(p.attributes) <= {"class", "src", "width", "height", "alt"} for p in page.all("img"))

    def test_feature_rows_have_a_table_and_no_pictures(self):
        data = rows(toy())
        model = fitted(data)
        page = page_of(model, data)
        assert page.all("img") == []
        assert "highlights" not in {s.attributes.get("id") for s in page.all("section")}
        lines = [line for body in page.by_id("gallery").all("tbody") for line in body.all("tr")]
        assert sorted(line.attributes["id"] for line in lines) == sorted(f"slot-{k}" for k in range(model.head.n_slots))
        for line in lines:
            slot = int(line.attributes["id"].removeprefix("slot-"))
            assert line.all("td")[0].text == str(int(model.head.exemplars[slot, 0]))
            assert line.all("td")[1].text == str(int(model.head.hits[slot]))

    def test_a_single_class(self):
        data = toy(n_classes=1, n=30)
        page = page_of(fitted(data), data)
        assert len(page.by_id("confusion").all("tbody")[0].all("tr")) == 1
        assert page.by_id("wrong").all("li", cls="card") == []

    def test_zero_unmatched(self):
        data = toy(noise=1)
        model = fitted(data)
        model.head.support_thresholds.fill_(-2)
        prediction = model.predict(data.x_test)
        assert prediction.matched.all()
        page = page_of(model, data)
        assert "None: some slot matches every test example." in page.by_id("unmatched").text
        assert page.by_id("unmatched").all("li", cls="card") == []
        assert "None: every matched test example is right." in page.by_id("wrong").text

    @pytest.mark.parametrize("make", [toy, lambda: rows(toy())])
    def test_no_labelled_test_part(self, make):
        data = make()
        data = replace(data, y_test=np.full_like(data.y_test, -1))
        page = page_of(fitted(data), data)
        assert page.all("ul", cls="legend") == []
        assert "no labelled test part" in page.by_id("confusion").text
        assert page.by_id("unmatched").all("p")[0].text == "None."
        assert [line.all("td")[2].text for line in page.by_id("classes").all("tbody")[0].all("tr")] == ["–"] * 3

    def test_unlabelled_test_examples_are_left_out(self):
        data = toy()
        y = data.y_test.copy()
        y[::2] = -1
        data = replace(data, y_test=y)
        page = page_of(fitted(data), data)
        cells = [cell.text for cell in page.by_id("confusion").all("tbody")[0].all("td")]
        assert sum(int(cell or 0) for cell in cells) == (y >= 0).sum() == 15

    def test_many_classes_show_the_largest_confusions(self):
        data = rows(toy(n_classes=30, n=900, noise=250))
        model = fitted(data, epochs=1, slots_per_class=1)
        prediction = model.predict(data.x_test)
        page = page_of(model, data)
        section = page.by_id("confusion")
        assert section.all("table", cls="matrix") == []
        counted = {}
        for truth, answer in zip(data.y_test.tolist(), prediction.labels.tolist(), strict=True):
            if truth != answer:
                counted[truth, answer] = counted.get((truth, answer), 0) + 1
        best = sorted(counted.items(), key=lambda item: (-item[1], item[0]))[:40]
        assert len(counted) > 40
        lines = [[cell.text for cell in line.all("th") + line.all("td")] for line in section.all("tbody")[0].all("tr")]
        assert lines == [[f"kind {a}", f"kind {b}", str(n), f"{100 * n / 10:.1f} %"] for (a, b), n in best]
        assert f"40 most frequent of {len(counted)} confusions" in section.text

    def test_labels_far_apart_need_no_matrix(self):
        data = rows(toy(noise=150))
        far = np.array([0, 60_000, 99_999])
        data = replace(data, y_train=far[data.y_train], y_test=far[data.y_test], class_names=())
        model = fitted(data, epochs=1, slots_per_class=1)
        tracemalloc.start()
        section = page_of(model, data).by_id("confusion")
        assert tracemalloc.get_traced_memory()[1] < 1e8  # the matrix would have taken 80 GB
        tracemalloc.stop()
        assert "With 100,000 classes" in section.text
        wrong = int((model.predict(data.x_test).labels != data.y_test).sum())
        assert wrong == sum(int(line.all("td")[1].text) for line in section.all("tbody")[0].all("tr")) > 0

    def test_many_classes_without_confusion(self):
        data = rows(toy(n_classes=26, n=390, noise=1))
        page = page_of(fitted(data, epochs=1, slots_per_class=1), data)
        assert "No test example was confused with another class." in page.by_id("confusion").text

    def test_contradictions_are_listed(self):
        data = toy()
        page = page_of(fitted(data), data, contradictions=list(range(30)))
        section = page.by_id("contradictions")
        cards = section.all("li", cls="card")
        assert len(cards) == 24
        assert "30 training examples cannot be matched" in section.text
        np.testing.assert_array_equal(cards[5].all("img")[0].pixels(), data.x_train[5, ..., 0])
        assert cards[5].all("b")[0].text == "kind 2"

    def test_an_interrupted_fit_says_so(self):
        data = toy()
        model = fitted(data)
        assert "Interrupted." in page_of(model, data, interrupted=True).all("header")[0].text
        assert "Interrupted." not in page_of(model, data).all("header")[0].text

    def test_a_slot_that_matches_nothing_is_at_no_finite_distance(self):
        data = toy(noise=1)
        model = fitted(data)
        model.head.support_thresholds.fill_(2.0)
        page = page_of(model, data)
        assert len(page.by_id("unmatched").all("li", cls="card")) == 30
        assert "inf" not in page.by_id("unmatched").text
        assert "nan" not in page.by_id("unmatched").text


class TestGallery:
    def test_the_cap_takes_the_first_of_each_class(self):
        head = IncrementalNeuralHashing(2)
        head.add_slots(torch.randn(7, 2), torch.tensor([1, 0, 1, 0, 1, 0, 2]))
        head.hits = torch.tensor([5, 2, 9, 2, 7, 8, 0])
        model = SlotModel(Preprocessing("features", (2,)), head)
        assert report_cards.gallery_slots(model).tolist() == [5, 1, 3, 2, 4, 0, 6]
        assert report_cards.gallery_slots(model, limit=4).tolist() == [5, 1, 2, 6]
        assert report_cards.gallery_slots(model, limit=1).tolist() == [5]

    def test_what_is_left_out_is_counted_and_not_linked(self, monkeypatch):
        monkeypatch.setattr(report_cards.gallery_slots, "__kwdefaults__", {"limit": 4})
        data = toy(noise=150)
        model = fitted(data)
        page = page_of(model, data)
        left_out = model.head.n_slots - 4
        assert left_out > 0
        assert f"4 of {model.head.n_slots} slots" in page.by_id("gallery").text
        assert f"{left_out} are left out" in page.by_id("gallery").text
        shown = {card.attributes["id"] for card in page.by_id("gallery").all("li", cls="card")}
        assert len(shown) == 4
        linked = {a.removeprefix("#") for a in asked_for(page) if a.startswith("#slot-")}
        assert linked <= shown
        mentioned = page.by_id("unmatched").text
        assert any(f"slot {k} " in mentioned for k in range(model.head.n_slots) if f"slot-{k}" not in shown)

    def test_further_examples_stand_in_a_row(self, digits):
        model, data, _, page = digits
        card = page.by_id("slot-0")
        (row,) = [p for p in card.all("img") if "more of its training examples" in p.attributes["alt"]]
        ids = [i for i in model.head.exemplars[0, 1:].tolist() if i >= 0]
        assert row.pixels().shape == (8, 9 * len(ids) - 1)
        for place, i in enumerate(ids):
            np.testing.assert_array_equal(row.pixels()[:, 9 * place : 9 * place + 8], data.x_train[i, ..., 0])

    def test_further_examples_give_way_when_there_are_many_bytes(self, monkeypatch, digits):
        monkeypatch.setattr(report_cards, "_FURTHER_BYTES", 3 * digits[0].head.n_slots * 64 - 1)
        page = page_of(*digits[:2])
        assert not [p for p in page.all("img") if "more of its" in p.attributes["alt"]]


class TestWords:
    @pytest.mark.parametrize(
        ("share", "digits", "text"),
        [
            (None, 1, "–"),
            (0.0, 1, "0.0 %"),
            (0.98765, 2, "98.77 %"),
            (1.0, 2, "100.00 %"),
            (0.99999, 1, "99.9 %"),
            (0.999, 0, "99 %"),
        ],
    )
    def test_percent(self, share, digits, text):
        assert environment.percent(share, digits) == text.replace(" ", "\u00a0")

    @pytest.mark.parametrize(
        ("seconds", "text"), [(0.04, "0.0 s"), (99.94, "99.9 s"), (100, "2 min"), (5000, "83 min"), (9000, "2.5 h")]
    )
    def test_duration(self, seconds, text):
        assert environment.duration(seconds) == text

    @pytest.mark.parametrize(("n", "limit"), [(0, 3), (3, 3), (10, 3), (100, 60), (5, 1)])
    def test_evenly(self, n, limit):
        chosen = report_cards.evenly(np.arange(n), limit)
        assert len(chosen) == min(n, limit)
        assert len(set(chosen.tolist())) == len(chosen)
        if limit > 1 and n > limit:
            gaps = np.diff(chosen)
            assert (chosen[0], chosen[-1]) == (0, n - 1)
            assert gaps.max() - gaps.min() <= 1


class TestFile:
    def test_a_fit_leaves_its_page_in_the_model_folder(self, tmp_path):
        data = toy()
        name, recipe = plan(data, "pixels", epochs=1, slots_per_class=2)
        model, summary = fit_and_save(data, name, recipe, out=tmp_path / "toy", command="slots fit --data toy")
        page = parse(Path(summary.report).read_text(encoding="utf-8"))
        assert page.all("h1")[0].text == f"toy remembered as {model.head.n_slots} slots"

    def test_wrong_number_of_answers(self):
        data = toy()
        model = fitted(data)
        prediction = model.predict(data.x_test[:7])
        summary = summary_of(model, replace(data, y_test=data.y_test[:7]), prediction)
        with pytest.raises(ValueError, match=r"`prediction` must hold one answer for each of 30 .*, got 7\. Predict"):
            fit_report.render(model, data, prediction, summary)

    def test_a_place_that_cannot_be_written(self, tmp_path):
        data = toy()
        model = fitted(data)
        prediction = model.predict(data.x_test)
        (tmp_path / "file").write_text("")
        with pytest.raises(StorageError):
            fit_report.write_report(
                model, data, prediction, summary_of(model, data, prediction), tmp_path / "file" / "report.html"
            )
