"""A life as feature rows, which all methods see: made by an encoder that has seen no more than the start."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from protocols.harness.encoders import Encoder, Features, make_encoder
from protocols.harness.foreign import foreign_inputs, is_noise
from protocols.harness.protocol import Setting
from protocols.runs.lifetime.shifts import shifted
from protocols.runs.lifetime.stream import JUNK, Day, Stream
from slots.errors import UsageError
from slots.progress import Progress
from slots.shapes import Ids, RawInputs


@dataclass(frozen=True)
class Rows:
    """What all methods see.

    Parameters
    ----------
    start : float32 array of shape (example, feature)
        What is known at the start, and
    labels : int64 array of shape (example,)
        its classes.
    days : sequence of float32 array
        The inputs of each day.
    plain, other : float32 arrays of shape (test example, feature)
        Test examples as they are and as the other domain shows them.
    """

    start: Features
    labels: Ids
    days: Sequence[Features]
    plain: Features
    other: Features


def make_rows(setting: Setting, stream: Stream, how: str, seed: int, progress: Progress) -> Rows:
    """The rows of a life.

    Parameters
    ----------
    setting : Setting
        Data and features.
    stream : Stream
        What comes when.
    how : str
        What the other domain does, as `shifted` knows it.
    seed : int
        Of the encoder, of the other domain, and of which junk comes.
    progress : callable
        ``progress(step, share)`` of the encoder's training.
    """
    data = setting.data
    x_start, labels, x_test = data.x_train[stream.start], data.y_train[stream.start], data.x_test[stream.test]

    def change(x: RawInputs) -> RawInputs:
        return shifted(x, how, seed=seed, like=x_start)

    encoder = make_encoder(setting, x_start, labels, seed, progress)
    foreign = _foreign(setting, stream.n_junk, seed)
    days = [_of_day(encoder, data.x_train, foreign, day, change) for day in stream.days]
    return Rows(_flat(encoder(x_start)), labels, days, _flat(encoder(x_test)), _flat(encoder(change(x_test))))


def _of_day(
    encoder: Encoder, x: RawInputs, foreign: RawInputs, day: Day, change: Callable[[RawInputs], RawInputs]
) -> Features:
    """A day's inputs as features."""
    junk = day.y == JUNK
    raw = np.asarray(x)[np.where(junk, 0, day.rows)]
    raw[junk] = foreign[day.rows[junk]]
    if day.shifted.any():
        raw[day.shifted] = change(raw[day.shifted])
    return _flat(encoder(raw))


def _foreign(setting: Setting, n: int, seed: int) -> RawInputs:
    """Junk of all kinds but noise, mixed."""
    rng = np.random.default_rng([seed, 5])
    found = foreign_inputs(setting.data, setting.data_dir, max(1, n), rng)
    together = np.concatenate([np.asarray(x) for name, x in found.items() if not is_noise(name)])
    if len(together) < n:
        raise UsageError(
            f"`junk` must be a smaller share: {n} foreign inputs are wanted, got {len(together)}. Try 0.05."
        )
    return np.asarray(together[rng.permutation(len(together))])


def _flat(features: Features) -> Features:
    return np.ascontiguousarray(features.reshape(len(features), -1), np.float32)
