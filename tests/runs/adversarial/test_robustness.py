"""The robustness protocol: what it attacks holds what it certifies, on the digits."""

import dataclasses

import numpy as np
import pytest
import torch

from protocols.data.loading import load_data
from protocols.harness.protocol import Setting
from protocols.runs.adversarial.defended import answerers, nearest_scores, prepare_robust
from protocols.runs.adversarial.robustness import PROTOCOL
from slots.errors import UsageError
from slots.progress import silent

DIGITS = load_data("digits")
FAST = {
    "epochs": 2,
    "slots": 40,
    "examples": 40,
    "certified": 40,
    "steps": 8,
    "restarts": 1,
    "l2": 1.0,
    "neighbours": 99,
}


@pytest.fixture(scope="module")
def outcome():
    setting = Setting(DIGITS, peers=PROTOCOL.peers, options={**FAST, "eps": [0.1]})
    return PROTOCOL.run_seed(setting, 0, silent)


def figures(outcome, group):
    return {row.method: row.figures for row in outcome.rows if row.group == group}


def test_attacks_leave_what_is_certified(outcome):
    attacked, certified = figures(outcome, "attacked, linf 0.1"), figures(outcome, "certified, linf, pixels in [0, 1]")
    certified |= figures(outcome, "certified with matches, linf, pixels in [0, 1]")
    for name in ("slots, l2:1", "slots, linf:0.3", "slots, cross-entropy"):
        nearest = attacked[f"{name}: nearest slot"]
        assert nearest["attacked"] >= certified[f"{name}: nearest slot"]["linf_10"]
        assert nearest["attacked"] < nearest["clean"]
        assert attacked[f"{name}: matched answers only"]["wrong"] <= (
            1 - certified[f"{name}: never matched wrongly"]["linf_10"]
        )


def test_certified_answers_are_no_more_often_wrong_than_before(outcome):
    attacked = figures(outcome, "attacked, linf 0.1")
    for name in ("slots, l2:1", "slots, linf:0.3"):
        before = 1 - attacked[f"{name}: nearest slot"]["clean"]
        both = attacked[f"{name}: matched and certified answers only"]
        alone = attacked[f"{name}: certified answers only"]
        assert both["wrong"] <= before
        assert alone["wrong"] <= before
        assert alone["wrong"] < attacked[f"{name}: matched answers only"]["wrong"]
        assert 0 < both["clean"] <= alone["clean"]
        matched, kept = (attacked[f"{name}: {it} only"] for it in ("matched answers", "certified matches"))
        assert kept["wrong"] <= matched["answered"] - matched["clean"]  # wrong and matched before the attack
        assert kept["clean"] <= matched["clean"]


def test_boxes_certify_more_and_larger_radii_less(outcome):
    pairs, boxes = (figures(outcome, group) for group in ("certified, l2, by pairs", "certified, l2, pixels in [0, 1]"))
    for method, found in boxes.items():
        assert found["l2_05"] >= pairs[method]["l2_05"]
        assert found["l2_05"] >= found["l2_10"] >= found["l2_158"]
    assert {"1 nearest", "k-means prototypes"} <= set(pairs)


def test_what_an_attack_follows_is_what_decides():
    setting = Setting(DIGITS, options=FAST)
    option = {key: PROTOCOL.option(setting, key) for key in PROTOCOL.defaults}
    task = prepare_robust(setting, 0, option, silent)
    images = task.rows[:, None, None].float()
    for it in answerers(task, 0.05):
        follows = it.against(task.labels)(images).detach().numpy() > 0
        answers = it.answers(images)
        wrong = (answers >= 0) & (answers != task.labels.numpy())
        if "certified matches" in it.method:  # it follows the depth of a match, the size does not enter
            assert not (wrong & ~follows).any()
        elif "certified" in it.method:  # by pairs the radius is smaller than in the box
            assert not (follows & ~wrong).any()
        else:
            assert (follows == wrong).all()
    head = task.defended[0].head
    told = head.predict(task.rows)
    nearest = nearest_scores(head, task.n_classes)(task.rows).argmax(1).numpy()
    assert (nearest == told.labels)[~told.matched].all()


@pytest.mark.parametrize(
    ("options", "said"),
    [({"eps": []}, "`eps` must be a list of numbers in"), ({"restarts": 0}, "`restarts` must be >= 1, got 0")],
)
def test_bad_options_are_one_line(options, said):
    with pytest.raises(UsageError, match=said):
        PROTOCOL.run_seed(Setting(DIGITS, options=options), 0, silent)


def test_networks_and_rows_are_refused():
    rows = dataclasses.replace(DIGITS, x_train=np.ones((9, 2), np.float32), x_test=np.ones((9, 2), np.float32))
    for setting in (Setting(DIGITS, backbone="cnn"), Setting(rows, backbone="none")):
        with pytest.raises(UsageError, match="`data` must be labelled images and the backbone pixels"):
            PROTOCOL.run_seed(setting, 0, silent)
    assert torch.get_num_threads() == 1
