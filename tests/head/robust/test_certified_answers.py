"""Answers that count as matched only where no change can have made them: attacked, at the rule itself."""

import numpy as np
import pytest
import torch

import slots
from protocols.data.loading import load_data
from slots.errors import UsageError
from slots.head.prediction import Answer
from slots.head.similarities import normalize
from slots.robust import RobustConfig, certified_answers, certify, predict_certified
from slots.robust.certificate import certify_rows

SIZES = {"l2": 0.3, "linf": 0.06}


@pytest.fixture(scope="module")
def fitted():
    """The digits as rows, with caps that are wide, and so are led astray."""
    data = load_data("digits")
    rows = data.x_train.reshape(len(data.x_train), -1)[:600] / np.float32(255)
    config = slots.TrainConfig(
        epochs=4, slots_per_class=4, robust=RobustConfig(radius=1.0), closing=slots.ClosingConfig(vouch=None)
    )
    model, _ = slots.fit(rows, data.y_train[:600], config=config)
    return model, data.x_test.reshape(len(data.x_test), -1)[:80] / np.float32(255), data.y_test[:80]


def attacked(model, rows, right, size, norm):
    """Points within a size of the rows, up the depth of the deepest slot of a wrong label; all points visited."""
    generator, of = torch.Generator().manual_seed(0), model.head.labels
    centres, weights = (normalize(it.detach().double()) for it in (model.head.centres, model.head.weights))
    mine = of == torch.from_numpy(right)[:, None]
    x = rows + size * torch.randn(rows.shape, generator=generator, dtype=torch.float64).sign() / (
        1 if norm == "linf" else rows.shape[1] ** 0.5
    )
    for _ in range(25):
        yield x
        unit = normalize(x)
        best = torch.minimum(unit @ weights.T, unit @ centres.T).masked_fill(mine, -2.0).argmax(1)
        way = weights[best] + centres[best] - unit
        change = x + 0.3 * size * (way.sign() if norm == "linf" else normalize(way)) - rows
        if norm == "linf":
            change = change.clamp(-size, size)
        else:
            change = change * (size / change.norm(dim=1, keepdim=True)).clamp(max=1)
        x = rows + change


@pytest.mark.parametrize("norm", SIZES)
def test_no_attack_makes_a_match_that_counts(fitted, norm):
    model, x, right = fitted
    size, rows = SIZES[norm], torch.from_numpy(x).double()
    before = certify_rows(model.head, rows, norm=norm)
    kept, turned, refused = {"match": 0, "nearest": 0}, 0, 0
    for points in attacked(model, rows, right, size * 0.9999, norm):
        found = certify_rows(model.head, points, norm=norm)
        led = found.prediction.matched & (found.prediction.labels != right)
        turned += (led & (before.prediction.labels == right)).sum()
        for of in kept:
            told = certified_answers(found, size, of=of)
            sure = told.matched
            kept[of] += sure.sum()
            label = told.labels[sure]
            if of == "match":  # the input was matched before, with this label
                assert before.prediction.matched[sure].all()
                assert (before.prediction.labels[sure] == label).all()
                refused += (led & ~sure).sum()
            else:
                assert (before.nearest_labels[sure] == label).all()
    assert kept["nearest"] > kept["match"] > 0
    assert turned > 0  # without the certificate the attack has its way
    assert refused > 0


def test_they_are_the_models_answers_but_for_what_counts_as_matched(fitted):
    model, x, _ = fitted
    plain = model.predict(x)
    matched = [predict_certified(model, x, size).matched for size in (0.0, 0.2, 0.4)]
    assert plain.matched.sum() >= matched[0].sum() > matched[1].sum() > matched[2].sum() > 0
    told = predict_certified(model, x, 0.2)
    for field in ("labels", "slots", "margins", "runner_up_slots", "runner_up_margins"):
        assert np.array_equal(getattr(told, field), getattr(plain, field))
    assert set(told.answers[~matched[1]]) == {Answer.UNMATCHED}
    assert (told.answers[matched[1]] == plain.answers[matched[1]]).all()
    assert told.answers.dtype == plain.answers.dtype
    assert (told.matched == (certify(model, x).matched_radii > 0.2)).all()
    assert len(predict_certified(model, x[:0], 0.2)) == 0


@pytest.mark.parametrize(
    ("size", "options", "said"),
    [
        (-1.0, {}, "`size` must be a number >= 0, got -1.0"),
        (float("nan"), {}, "`size` must be a number >= 0, got nan"),
        (0.1, {"of": "label"}, "`of` must be match or nearest, got 'label'"),
    ],
)
def test_bad_sizes_and_decisions_are_one_line(fitted, size, options, said):
    model, x, _ = fitted
    with pytest.raises(UsageError, match=said):
        predict_certified(model, x, size, **options)
