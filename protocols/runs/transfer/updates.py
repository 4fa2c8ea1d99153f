"""Question 4: does an update help what is new and spare what is old? New classes, new domains, both, neither."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final
from zlib import crc32

import numpy as np
import torch

from protocols.harness.outcome import Row
from protocols.runs.transfer.attempts import attempt
from protocols.runs.transfer.domains import IMAGE_DOMAINS, moved
from protocols.runs.transfer.novelty import logistic_layer
from protocols.runs.transfer.variants import Features, Task, rows_of
from protocols.runs.unsupervised.peers import nearest
from slots.features.source import unit_features
from slots.head.prediction import changed_matched
from slots.model.slot_model import SlotModel
from slots.shapes import Ids
from slots.training.config import TrainConfig
from slots.training.defaults import AutoConfig
from slots.training.fitting import fit
from slots.update.queries import Proposal

GROUP, QUERIES = "updates", "groups of the first 20 queries"
UPDATE, UNTOUCHED = "SlotModel.update", "left alone"
SCENARIOS: Final = ("new classes", "new domain", "new classes and domain", "nothing new")
BUDGETS: Final = (20, 100, 500)

_SHARE = 0.3  # of the classes, new
_FIRST = 20
_REFITTED = "Keeps all training data; told the labels that our queries got."


@dataclass(frozen=True)
class Scenario:
    """What a model learns, what then comes without labels, and what is asked before and after.

    Parameters
    ----------
    name : str
        One of `SCENARIOS`.
    base, base_y : arrays
        Rows and classes of the fit.
    stream, stream_y : arrays
        New rows; their classes are told where they are asked.
    old, old_y, new, new_y : arrays
        Test rows like the base, and like what is new in the stream; with nothing new, the same.
    """

    name: str
    base: Features
    base_y: Ids
    stream: Features
    stream_y: Ids
    old: Features
    old_y: Ids
    new: Features
    new_y: Ids


Answer = Callable[[Features], Ids]


@dataclass(frozen=True)
class _Learned:
    """Answers before and after, and what it took."""

    before: Answer
    after: Answer
    seconds: float = 0.0
    changed: float | None = None


def update_rows(task: Task, seed: int, peers: Sequence[str]) -> list[Row]:
    """Accuracy on the old part and on the new one, before and after an update with some labels, in four scenarios.

    Parameters
    ----------
    task : Task
        Half of its training part is the base, half the stream; pictures, where there are any, come from a domain that
        set and seed draw, other rows turned and moved.
    seed : int
        Draws new classes, halves and domain.
    peers : sequence of str
        ``nearest`` and ``refitted``, which keep all training data and are fitted anew.

    Returns
    -------
    list of Row
        One for each method, scenario and number of labels: ``old_before``, ``old_after``, ``new_before``,
        ``new_after``, ``both`` (mean of the two after), ``drop`` (of the old part), ``behind`` (of the new part, below
        the model that was left alone), ``changed`` (matched test answers that differ afterwards), ``asked`` (labels,
        fewer than the budget where fewer queries stand for all that is unmatched).
    """
    rows = []
    models: dict[bytes, SlotModel] = {}
    for scenario in scenarios(task, seed):
        key = scenario.base.tobytes()[:4096] + scenario.base_y.tobytes()
        if key not in models:
            models[key] = fit(scenario.base, scenario.base_y, config=AutoConfig(TrainConfig(seed=seed)))[0]
        for budget in (it for it in BUDGETS if 2 * it <= len(scenario.stream_y)):
            proposal = models[key].propose(scenario.stream, budget=budget)
            place = f"{task.name}, {scenario.name}, {budget} labels"
            for name, learn in _methods(models[key], scenario, proposal, peers).items():
                ours, note = name == UPDATE, "" if name in (UPDATE, UNTOUCHED) else _REFITTED
                figures = partial(_figures, learn, scenario, float(len(proposal.queries)))
                rows.append(attempt(figures, name, ours=ours, group=GROUP, task=place, note=note))
            if budget == BUDGETS[0] and len(proposal.queries):
                rows += _group_rows(proposal, scenario.stream_y, f"{task.name}, {scenario.name}")
    return rows


def scenarios(task: Task, seed: int) -> Iterator[Scenario]:
    """The scenarios that the task allows: new classes need four classes or more."""
    rng = np.random.default_rng([seed, 4])
    base, late = np.array_split(rng.permutation(len(task.y)), 2)
    moved_x, moved_test = other_domain(task, seed)
    new = rng.permutation(task.n_classes)[: max(1, round(_SHARE * task.n_classes))]
    for name in SCENARIOS:
        fresh = new if "classes" in name else new[:0]
        if "classes" in name and task.n_classes < 4:
            continue
        here = base[~np.isin(task.y[base], fresh)]
        x, x_test = (moved_x, moved_test) if "domain" in name else (task.x, task.x_test)
        old, newly = (np.isin(task.y_test, it) for it in (np.unique(task.y[here]), fresh))
        asked = newly if name == "new classes" else np.ones(len(newly), bool)
        if len(np.unique(task.y[here])) < 2 or not old.any() or not asked.any():
            continue
        yield Scenario(
            name,
            task.x[here],
            task.y[here],
            x[late],
            task.y[late],
            task.x_test[old],
            task.y_test[old],
            x_test[asked],
            task.y_test[asked],
        )


def other_domain(task: Task, seed: int) -> tuple[Features, Features]:
    """Training and test rows of the task in another domain, which its name and the seed draw."""
    if task.pictures is None:
        return moved(task.x, seed=seed), moved(task.x_test, seed=seed)
    names = list(IMAGE_DOMAINS)
    change = IMAGE_DOMAINS[names[(crc32(task.name.encode()) + seed) % len(names)]]
    train, test = task.pictures
    return rows_of(change(train)), rows_of(change(test))


def query_groups(proposal: Proposal) -> list[Ids]:
    """The unmatched rows that each query stands for: within the radius of its cap, and of no earlier query's."""
    assert proposal.source is not None
    unit = unit_features(proposal.source.take(proposal.unmatched)).cpu().numpy()
    place = np.searchsorted(proposal.unmatched, proposal.queries)
    within = unit @ unit[place].T >= np.cos(proposal.radius)
    within[place, np.arange(len(place))] = True
    first = np.where(within.any(1), within.argmax(1), -1)
    return [proposal.unmatched[first == number] for number in range(len(place))]


def _methods(
    model: SlotModel, scenario: Scenario, proposal: Proposal, peers: Sequence[str]
) -> dict[str, Callable[[], _Learned]]:
    """Ours, the model left alone, and the peers, all with the same labels."""
    told = scenario.stream_y[proposal.queries]
    x, y = np.concatenate([scenario.base, scenario.stream[proposal.queries]]), np.concatenate([scenario.base_y, told])

    def untouched(of: SlotModel = model) -> Answer:
        return lambda rows: of.predict(rows).labels

    def update() -> _Learned:
        started, after = time.process_time(), copy.deepcopy(model)
        labels = dict(zip(proposal.queries.tolist(), told.tolist(), strict=True))
        after.update(scenario.stream, labels, proposal=proposal)
        seconds = time.process_time() - started
        asked = np.concatenate([scenario.old, scenario.new])
        changed = float(len(changed_matched(model.predict(asked), after.predict(asked))))
        return _Learned(untouched(), untouched(after), seconds, changed)

    def anew(learn: Callable[[Features, Ids], Answer]) -> _Learned:
        started = time.process_time()
        after = learn(x, y)
        seconds = time.process_time() - started
        return _Learned(learn(scenario.base, scenario.base_y), after, seconds)

    found = {UPDATE: update, UNTOUCHED: lambda: _Learned(untouched(), untouched())}
    return found | {PEERS[name][0]: partial(anew, PEERS[name][1]) for name in peers if name in PEERS}


def _figures(learn: Callable[[], _Learned], scenario: Scenario, asked: float) -> dict[str, float | None]:
    """Accuracy of both parts, before and after."""
    learned, found = learn(), dict[str, float]()
    for when, answer in (("before", learned.before), ("after", learned.after)):
        found[f"old_{when}"] = float((answer(scenario.old) == scenario.old_y).mean())
        found[f"new_{when}"] = float((answer(scenario.new) == scenario.new_y).mean())
    return {
        **found,
        "both": (found["old_after"] + found["new_after"]) / 2,
        "drop": found["old_before"] - found["old_after"],
        "behind": found["new_before"] - found["new_after"],
        "changed": learned.changed,
        "asked": asked,
        "seconds": learned.seconds,
    }


def _group_rows(proposal: Proposal, stream_y: Ids, place: str) -> list[Row]:
    """How much of a query's group has its label, and how many rows it stands for."""
    shares, sizes = [], []
    for query, group in zip(proposal.queries[:_FIRST], query_groups(proposal), strict=False):
        shares.append(float((stream_y[group] == stream_y[query]).mean()))
        sizes.append(len(group))
    weighed = float(np.average(shares, weights=sizes))
    figures = {"purity": float(np.mean(shares)), "purity_by_size": weighed, "rows": float(np.mean(sizes))}
    figures |= {} if proposal.purity is None else {"expected": proposal.purity}
    return [Row("SlotModel.propose", figures, True, QUERIES, "", place)]


def _nearest(x: Features, y: Ids) -> Answer:
    return lambda asked: y[nearest(asked, x)]


def _logistic(x: Features, y: Ids) -> Answer:
    classes, numbers = np.unique(y, return_inverse=True)
    linear = logistic_layer(x, numbers)

    def answer(asked: Features) -> Ids:
        with torch.no_grad():
            found: Ids = classes[linear(torch.from_numpy(asked)).argmax(1).numpy()]
        return found

    return answer


PEERS: Final[Mapping[str, tuple[str, Callable[[Features, Ids], Answer]]]] = {
    "nearest": ("1-NN, all data", _nearest),
    "refitted": ("logistic regression, all data again", _logistic),
}
"""Short name to the name in tables and the function that learns from rows and classes."""
