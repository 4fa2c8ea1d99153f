"""What a fit's record says in words."""

from dataclasses import replace

import pytest

from protocols.summaries.fit import Looked, Vouched
from slots.training.defaults import Try


@pytest.mark.parametrize(
    ("figures", "says"),
    [
        (
            (0.98, 3000, 2480, 2459, True, 1.5),
            "Matched answers are right at 98 % or better on examples that trained nothing: 2,459 of 2,480.",
        ),
        (
            (0.985, 60, 31, 31, False, 0.2),
            "It could not be shown that matched answers are right at 98.5 %: of 60 examples that trained nothing "
            "31 are matched, 31 rightly, too few to tell.",
        ),
        (
            (0.98, 60, 0, 0, False, None),
            "It could not be shown that matched answers are right at 98 %: of 60 examples that trained nothing "
            "none is matched.",
        ),
        (
            (0.98, 1200, 1070, 995, False, 0.0),
            "Matched answers are not right at 98 %: on 1,200 examples that trained nothing 995 of 1,070 are, 93.0 %.",
        ),
    ],
)
def test_what_a_match_is_worth(figures, says):
    assert str(Vouched(*figures)) == says


@pytest.mark.parametrize(("left_open", "says"), [(1, "1 more is"), (1200, "1,200 more are")])
def test_what_was_left_open_is_said_last(left_open, says):
    shown = Vouched(0.98, 3000, 2400, 2390, shown=True, smaller_by=1.5)
    said = str(replace(shown, open_share=0.2, left_open=left_open))
    assert said.startswith(str(shown))
    assert said.removeprefix(str(shown)).startswith(f" For the open share of 20 %, {says} left unmatched: ")
    assert str(replace(shown, open_share=0.2)) == str(shown), "a share that kept nothing back needs no words"


def test_a_record_without_it_opens_and_one_with_more_too():
    assert Vouched.of_history({"data": "digits"}) is None
    kept = {"level": 0.9, "n_checked": 5, "n_matched": 4, "n_right": 4, "shown": False, "smaller_by": None, "later": 1}
    assert Vouched.of_history({"vouching": kept}) == Vouched(0.9, 5, 4, 4, shown=False, smaller_by=None)
    opened = Vouched(0.9, 5, 4, 4, shown=False, smaller_by=None, open_share=0.2, left_open=1)
    assert Vouched.of_history({"vouching": kept | {"open_share": 0.2, "left_open": 1}}) == opened


def test_the_table_of_settings_has_the_chosen_first_and_the_best_of_the_others():
    tries = tuple(Try(None, count, 20.0, accuracy) for count, accuracy in [(1, 0.5), (4, 0.9), (12, 0.91), (30, 0.6)])
    used = {"whitening": None, "slots_per_class": 5, "scale": 20.0, "epochs": 10, "batch_size": 40}
    look = Looked(500, tries[1], tries, used)
    assert [row[1] for row in look.table(most=3)[1:]] == ["4", "12", "30"]
    assert look.table()[1] == ("none, chosen", "4", "20", "90.00 %")
    assert look.sentence() == "whitening: none, 5 slots a class, scale 20, 10 epochs in batches of 40"
