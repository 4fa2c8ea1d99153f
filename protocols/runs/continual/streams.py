"""Streams of labelled examples: new classes, new domains, or a blur of both without any border."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from slots.errors import UsageError
from slots.shapes import Ids

KINDS: Final = ("class", "blurry", "domain")
"""``class``: new classes, then never again. ``blurry``: a share of each class comes at any time. ``domain``: the same
labels on ever other classes (van de Ven and Tolias, 2019)."""


@dataclass(frozen=True)
class Stream:
    """A stream cut into parts, after each of which everybody is asked.

    Parameters
    ----------
    kind : str
        One of `KINDS`.
    parts : tuple of int64 array
        Rows of the training data in the order in which they come, each once.
    targets : int64 array of shape (example,)
        What is to be learned about each training row.
    tests : tuple of int64 array
        Rows of the test data that belong to each part.
    test_targets : int64 array of shape (example,)
        What a right answer to each test row is.
    groups : tuple of tuple of int
        Classes of each part.
    """

    kind: str
    parts: tuple[Ids, ...]
    targets: Ids
    tests: tuple[Ids, ...]
    test_targets: Ids
    groups: tuple[tuple[int, ...], ...]

    def batches(self, part: int, size: int) -> Iterator[Ids]:
        """Training rows of a part, some at a time."""
        rows = self.parts[part]
        for i in range(0, len(rows), size):
            yield rows[i : i + size]

    def known(self, part: int) -> int:
        """How many of the test sets can be asked after a part: those of earlier parts; in a blur all of them."""
        return len(self.tests) if self.kind == "blurry" else part + 1


def make_stream(
    kind: str, y: Ids, y_test: Ids, *, n_tasks: int, seed: int, blur: float = 0.1, n_examples: int = 0
) -> Stream:
    """Cut labelled data into a stream of tasks: class-incremental, blurred, or domain-incremental.

    Parameters
    ----------
    kind : {"class", "blurry", "domain"}
        Classes part by part; the same with some examples at any time; each part a domain of the same two answers.
    y, y_test : int64 array of shape (example,)
        Classes; examples with -1 take no part.
    n_tasks : int
        Parts, >= 2 and no more than half the classes, so that each has two classes or more.
    seed : int
        Of the order within a part, of what is left out, and of the blur.
    blur : float in [0, 1), default 0.1
        ``blurry``: share of the examples of each class that come at any time instead of in their part.
    n_examples : int, default 0
        Take so many training examples at most, drawn at random; 0 takes all.

    Returns
    -------
    Stream

    Raises
    ------
    UsageError
        If an argument is out of its range.

    Notes
    -----
    Classes come in the order of their numbers, in parts as even as can be: the ten digits in five pairs.

    Examples
    --------
    >>> y = np.arange(4).repeat(2)
    >>> stream = make_stream("class", y, y, n_tasks=2, seed=0)
    >>> stream.groups, [sorted(y[part].tolist()) for part in stream.parts]
    (((0, 1), (2, 3)), [[0, 0, 1, 1], [2, 2, 3, 3]])
    """
    if kind not in KINDS:
        raise UsageError(f"`streams` must name some of {', '.join(KINDS)}, got {kind!r}. Leave it out for all.")
    if not 0 <= blur < 1:
        raise UsageError(f"`blur` must lie in [0, 1), got {blur}. 0.1 lets a tenth of each class come at any time.")
    classes = np.unique(y[y >= 0])
    if not 2 <= n_tasks <= len(classes) // 2:
        raise UsageError(
            f"`tasks` must lie between 2 and half the number of classes ({len(classes)}), got {n_tasks}. "
            "Every task needs two classes."
        )
    rng = np.random.default_rng(seed)
    rows = rng.permutation(np.flatnonzero(y >= 0))
    if n_examples:
        rows = rows[:n_examples]
    groups = [tuple(int(it) for it in part) for part in np.array_split(classes, n_tasks)]
    owner, place = np.zeros(1 + int(classes.max()), np.int64), np.zeros(1 + int(classes.max()), np.int64)
    for number, group in enumerate(groups):
        owner[list(group)], place[list(group)] = number, np.arange(len(group))
    part_of = owner[y[rows]]
    if kind == "blurry":
        moved = rng.random(len(rows)) < blur
        part_of[moved] = rng.integers(n_tasks, size=int(moved.sum()))
    tests = tuple(np.flatnonzero(np.isin(y_test, group)) for group in groups)
    domain = kind == "domain"
    return Stream(
        kind=kind,
        parts=tuple(rows[part_of == number] for number in range(n_tasks)),
        targets=place[np.maximum(y, 0)] if domain else y,
        tests=tests,
        test_targets=place[np.maximum(y_test, 0)] if domain else y_test,
        groups=tuple(groups),
    )
