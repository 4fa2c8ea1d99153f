"""What many sets say together: mean ranks, means, how often a method leads, and whether a promise was kept."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from protocols.harness.outcome import Row, SeedOutcome

_ALLOWED = 0.005  # accuracy that an update may cost the old part


def ranks(values: Sequence[float | None], *, higher: bool = True) -> list[float]:
    """Rank of each value, 1 the best; equal values share the mean of their ranks, what was not measured comes last.

    Parameters
    ----------
    values : sequence of float
        None and NaN: not measured.
    higher : bool, default True
        Whether higher is better.

    Examples
    --------
    >>> ranks([0.9, 0.7, None, 0.9])
    [1.5, 3.0, 4.0, 1.5]
    """
    from scipy.stats import rankdata

    worst = -np.inf
    known = [worst if it is None or np.isnan(it) else (it if higher else -it) for it in values]
    return [float(it) for it in rankdata([-it for it in known])]


def rank_rows(
    rows: Sequence[Row],
    group: str,
    key: str,
    *,
    also: Sequence[str] = (),
    worst: Sequence[str] = (),
    higher: bool = True,
) -> list[Row]:
    """One row a method over all sets of a group.

    Parameters
    ----------
    rows : sequence of Row
        Each with its set as ``task``; methods that are missing on a set are ranked last there.
    group : str
        Whose rows are counted.
    key : str
        Figure that ranks.
    also : sequence of str
        Further figures whose means are wanted.
    worst : sequence of str
        Figures whose largest value is wanted too, as ``worst_`` and their name.
    higher : bool, default True
        Whether higher values of ``key`` are better.

    Returns
    -------
    list of Row
        ``sets`` (count); where there are several methods, ``rank`` (mean over the sets) and ``first`` (share of the
        sets on which no method has a better figure); the means of ``key`` and ``also`` over the sets where they were
        measured. In the order of the rows; none where the group has none.
    """
    mine = [row for row in rows if row.group == group and row.task]
    tasks = list(dict.fromkeys(row.task for row in mine))
    methods = list(dict.fromkeys(row.method for row in mine))
    by_place = {(row.method, row.task): row for row in mine}
    table = {task: [_figure(by_place.get((method, task)), key) for method in methods] for task in tasks}
    places = np.array([ranks(values, higher=higher) for values in table.values()]).reshape(len(tasks), len(methods))
    best = places.min(1, keepdims=True, initial=np.inf)
    found = []
    for place, method in enumerate(methods):
        some = [it for task in tasks if (it := by_place.get((method, task))) is not None]
        figures: dict[str, float | None] = {"sets": float(len(tasks))}
        if len(methods) > 1:
            figures["rank"] = float(places[:, place].mean())
            figures["first"] = float((places[:, place] == best[:, 0]).mean())
        for name in (key, *also):
            values = [value for row in some if (value := _figure(row, name)) is not None]
            figures[name] = float(np.mean(values)) if values else None
            if name in worst and values:
                figures[f"worst_{name}"] = float(max(values))
        found.append(Row(method, figures, ours=some[0].ours, group=f"{group}, over the sets", note=some[0].note))
    return found


def promise(seeds: Sequence[SeedOutcome], *, group: str, method: str, wanted: float) -> str:
    """Whether a share of matched answers is right as promised, all sets and seeds together, as a sentence.

    Parameters
    ----------
    seeds : sequence of SeedOutcome
        With rows that count ``n_matched`` and ``n_right``.
    group, method : str
        Whose rows are counted.
    wanted : float
        The promised share.

    Notes
    -----
    One-sided exact binomial test: the chance of so few right answers if each were right with the promised chance.
    Variants of one data set share test examples, so answers are not independent; the test takes them as if they were.
    """
    from scipy.stats import binomtest

    rows = _rows(seeds, group, method)
    matched = int(sum(row.figures.get("n_matched") or 0 for row in rows))
    right = int(sum(row.figures.get("n_right") or 0 for row in rows))
    if not matched:
        return f"{method}: no answer was matched, so nothing was promised ({len(rows)} sets and seeds)."
    chance = binomtest(right, matched, wanted, alternative="less").pvalue
    verdict = "not held" if chance < 0.05 else "held"
    shares = [row.figures["n_right"] / row.figures["n_matched"] for row in rows if row.figures.get("n_matched")]  # type: ignore[operator]
    below = sum(share < wanted for share in shares)
    return (
        f"{method}: right when matched {100 * right / matched:.2f} % of {matched:,} matched test answers over "
        f"{len(rows)} sets and seeds; promised {100 * wanted:g} %: {verdict} (exact binomial test, p = {chance:.2g}); "
        f"below it on {below} of {len(shares)}, lowest {100 * min(shares):.1f} %."
    )


def changes(seeds: Sequence[SeedOutcome], *, group: str, method: str) -> str:
    """Drops of the old part, updates behind the untouched model, and matched answers that changed, as a sentence.

    Parameters
    ----------
    seeds : sequence of SeedOutcome
        With rows that tell ``drop``, ``behind`` and ``changed``.
    group, method : str
        Whose rows are counted.
    """
    rows = _rows(seeds, group, method)
    drops, behind = ([_figure(row, key) or 0.0 for row in rows] for key in ("drop", "behind"))
    changed = int(sum(_figure(row, "changed") or 0 for row in rows))
    deep = sum(it > _ALLOWED + 1e-12 for it in drops)
    late = sum(it > 1e-12 for it in behind)
    return (
        f"{method}: {len(rows)} updates; the old part fell by more than {100 * _ALLOWED:g} points in {deep}, at most "
        f"by {100 * max(0.0, *drops):.2f}; the new part ended below the untouched model in {late}, at most by "
        f"{100 * max(0.0, *behind):.2f}; {changed:,} matched answers changed."
    )


def purity(seeds: Sequence[SeedOutcome], *, group: str) -> str:
    """How much of the queries' groups has the query's class, as a sentence.

    Parameters
    ----------
    seeds : sequence of SeedOutcome
        With rows that tell ``purity``.
    group : str
        Whose rows are counted.
    """
    rows = [row for seed in seeds for row in seed.rows if row.group == group and row.task]
    shares = [it for row in rows if (it := _figure(row, "purity")) is not None]
    return (
        f"{group[0].upper()}{group[1:]}: {100 * float(np.mean(shares)):.1f} % of a group is of the query's class, mean "
        f"over {len(shares)} streams, lowest {100 * min(shares):.1f} %."
    )


def _rows(seeds: Sequence[SeedOutcome], group: str, method: str) -> list[Row]:
    return [row for seed in seeds for row in seed.rows if row.group == group and row.method == method and row.task]


def _figure(row: Row | None, key: str) -> float | None:
    value = None if row is None else row.figures.get(key)
    return None if value is None or np.isnan(value) else float(value)
