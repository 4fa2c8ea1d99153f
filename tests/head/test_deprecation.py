"""Old names of keywords: taken with a warning, never beside the new ones."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, replace

import numpy as np
import pytest

from slots.deprecation import renamed
from slots.training import TrainConfig, fit
from slots.update import Inquiry, SpreadConfig, UpdateConfig


@renamed(report="progress")
def work(x, *, progress=None):
    """Say what came."""
    return x, progress


@renamed(closing="mode")
@dataclass(frozen=True)
class Config:
    """A setting whose field has another name now."""

    mode: str = "compact"


def test_an_old_keyword_of_a_function_is_taken_with_a_warning():
    with pytest.warns(DeprecationWarning, match="`report` of work is called `progress` now"):
        assert work(1, report="told") == (1, "told")
    assert work(1, progress="told") == (1, "told")
    assert "report" not in inspect.signature(work).parameters


def test_an_old_field_of_a_config_is_taken_and_read():
    with pytest.warns(DeprecationWarning, match="`closing` of Config is called `mode` now") as said:
        old = Config(closing="full")
    assert said[0].filename == __file__, "the warning must point at the caller"
    assert old == Config(mode="full")
    assert old.closing == "full"
    assert replace(old, mode="compact") == Config()


def test_old_and_new_names_together_are_refused():
    with pytest.raises(TypeError, match=r"`closing` is the old name of `mode` of Config\. Pass `mode` alone"):
        Config(closing="full", mode="full")
    with pytest.raises(TypeError, match="unexpected keyword argument 'other'"):
        work(1, other=2)


def test_public_calls_still_take_report():
    rng, told = np.random.default_rng(0), []
    x = np.eye(4, dtype=np.float32)[np.arange(200) % 2] + rng.normal(0, 0.1, (200, 4)).astype(np.float32)
    config = TrainConfig(epochs=1, slots_per_class=1, held_out=0.2)
    with pytest.warns(DeprecationWarning, match="`report` of fit is called `progress` now"):
        model, _ = fit(x, np.arange(200) % 2, config=config, report=lambda *what: told.append(what))
    new = np.roll(x, 2, 1)
    with pytest.warns(DeprecationWarning, match="`report` of Inquiry is"):
        inquiry = Inquiry(model, new, report=lambda *what: told.append(what))
    with pytest.warns(DeprecationWarning, match=r"`report` of SlotModel\.propose is"):
        model.propose(new, report=lambda *what: told.append(what))
    with pytest.warns(DeprecationWarning, match=r"`outlook` of SlotModel\.update is"):
        done = model.update(new, {0: 2}, config=UpdateConfig(spread=SpreadConfig(), epochs=1), outlook=inquiry.pool)
    assert done.slots_added > 0
    assert {step for step, _ in told} >= {"matching", "candidates"}
