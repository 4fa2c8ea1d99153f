"""Rows that new slots are refined on: all, or of very many everything remembered and some inputs, drawn anew."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import slots
from slots.update.refining import refinement
from slots.update.refining.refinement import epoch_rows


@given(
    n_inputs=st.integers(0, 300), n_remembered=st.integers(0, 100), seed=st.integers(0, 99), most=st.integers(1, 200)
)
@settings(max_examples=60, deadline=None)
def test_an_epoch_sees_all_that_is_remembered_and_no_row_twice(n_inputs, n_remembered, seed, most):
    rng = np.random.default_rng(seed)
    usable = np.flatnonzero(rng.random(n_inputs + n_remembered) < 0.8)
    remembered = usable[usable >= n_inputs]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(refinement, "MOST_ROWS", most)
        epochs = [epoch_rows(usable, n_inputs, rng) for _ in range(2)]
    for rows in epochs:
        assert len(rows) == len(set(rows.tolist())) == min(len(usable), most)
        assert np.isin(rows, usable).all()
        assert np.isin(remembered[:most], rows).all()
    if len(usable) <= most:
        assert set(epochs[0].tolist()) == set(usable.tolist())


def test_an_update_on_some_rows_of_an_epoch_learns_the_new_class(monkeypatch):
    def rows(seed, classes, n):
        rng = np.random.default_rng(seed)
        y = rng.integers(0, classes, n)
        return (np.random.default_rng(7).normal(size=(6, 16))[y] + rng.normal(0, 0.4, (n, 16))).astype(np.float32), y

    x, y = rows(0, 5, 600)
    model, _ = slots.fit(x, y)
    new, labels = rows(1, 6, 6000)
    proposal = model.propose(new, budget=12)
    monkeypatch.setattr(refinement, "MOST_ROWS", 1500)
    seen = []
    monkeypatch.setattr(refinement, "epoch_rows", lambda *it: seen.append(len(epoch_rows(*it))) or epoch_rows(*it))
    model.update(new, {int(it): int(labels[it]) for it in proposal.queries}, proposal=proposal)
    assert seen
    assert set(seen) == {1500}
    asked, truth = rows(2, 6, 1000)
    right = model.predict(asked).labels == truth
    assert right[truth == 5].mean() > 0.97
    assert right[truth < 5].mean() > 0.97
