"""The `transfer` protocol: everything by default, on many data sets and what can be made of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from importlib.util import find_spec
from itertools import product
from typing import Any, Final

import numpy as np

from protocols.harness.foreign import foreign_inputs, is_noise
from protocols.harness.outcome import Column, Row, SeedOutcome
from protocols.harness.protocol import Protocol, Setting
from protocols.runs.transfer import classifiers, clusters, novelty, streams, updates
from protocols.runs.transfer.sources import Source, find_sources, source_files
from protocols.runs.transfer.summary import changes, promise, purity, rank_rows
from protocols.runs.transfer.variants import VARIANTS, Inputs, Task, make_task, task_name
from slots.errors import SlotsError, UsageError
from slots.progress import Progress


@dataclass(frozen=True)
class Question:
    """A part of the suite.

    Parameters
    ----------
    measure : callable
        From a set, a seed and the names of peers to rows.
    variants : tuple of str
        Keys of `VARIANTS` on which it is asked.
    """

    measure: Callable[[Task, int, Sequence[str]], list[Row]]
    variants: tuple[str, ...]


QUESTIONS: Final[Mapping[str, Question]] = {
    "accuracy": Question(classifiers.classifier_rows, tuple(VARIANTS)),
    "novelty": Question(novelty.novelty_rows, ("as it is", "15 a class", "1 to 100", "16 directions", "mixed domains")),
    "clusters": Question(
        clusters.cluster_rows, ("as it is", "15 a class", "1 to 100", "16 directions", "turned classes")
    ),
    "discovery": Question(clusters.discovery_rows, ("as it is", "50 a class", "16 directions", "turned classes")),
    "updates": Question(updates.update_rows, ("as it is", "50 a class", "classes merged")),
    "stream": Question(streams.stream_rows, ("as it is", "15 a class", "16 directions", "turned classes")),
}
"""Name to what it measures, and where."""


def run_seed(setting: Setting, seed: int, progress: Progress) -> SeedOutcome:
    """Every question on every set; see `PROTOCOL`."""
    option = _options(setting)
    sources, skipped = find_sources(setting, lambda name: any(_wanted(name, it, option) for it in VARIANTS))
    rows, sets = list[Row](), dict[str, dict[str, Any]]()
    for task, variant, share in _tasks(sources, setting, seed, option):
        sets[task.name] = _described(task)
        for name in (it for it in option["questions"] if variant in QUESTIONS[it].variants):
            progress(f"{task.name}, {name}", share)
            try:
                rows += QUESTIONS[name].measure(task, seed, _installed(setting.peers, skipped))
            except SlotsError as error:
                skipped[f"{name} on {task.name}"] = str(error)
    if not sets:
        raise UsageError(f'`sets` must name sets that can be made, got {option["sets"]}. Try ["digits*"].')
    return SeedOutcome([*summaries(rows), *rows], facts={"sets": sets}, skipped=skipped)


def summaries(rows: Sequence[Row]) -> list[Row]:
    """The tables over all sets, those of questions that were asked."""
    quality, clustered = ("fpr95", "alarms", "seconds"), ("acc", "found", "seconds")
    found = rank_rows(rows, classifiers.GROUP, "accuracy", also=("seconds", "size"))
    found += rank_rows(rows, novelty.NEAR, "auroc", also=quality) + rank_rows(rows, novelty.FAR, "auroc", also=quality)
    found += rank_rows(rows, clusters.GROUP, "nmi", also=clustered)
    found += rank_rows(rows, clusters.DISCOVERY, "nmi", also=(*clustered, "acc_old", "acc_new"))
    parts = ("old_before", "old_after", "new_before", "new_after", "drop", "behind", "changed", "asked", "seconds")
    found += rank_rows(rows, updates.GROUP, "both", also=parts, worst=("drop", "behind"))
    found += rank_rows(rows, updates.QUERIES, "purity", also=("purity_by_size", "expected", "rows"))
    return found + rank_rows(rows, streams.GROUP, "final", also=("bytes", "seconds"))


def findings(seeds: Sequence[SeedOutcome]) -> list[str]:
    """What all seeds say together."""
    groups = {row.group for seed in seeds for row in seed.rows}
    found = []
    if classifiers.GROUP in groups:
        for method in (classifiers.FIT, classifiers.ESTIMATOR):
            found.append(promise(seeds, group=classifiers.GROUP, method=method, wanted=classifiers.level()))
    if updates.GROUP in groups:
        found.append(changes(seeds, group=updates.GROUP, method=updates.UPDATE))
    if updates.QUERIES in groups:
        found.append(purity(seeds, group=updates.QUERIES))
    return found


def _options(setting: Setting) -> dict[str, Any]:
    option = {key: PROTOCOL.option(setting, key) for key in PROTOCOL.defaults}
    unknown = [name for name in option["questions"] if name not in QUESTIONS]
    if unknown or not option["questions"]:
        raise UsageError(
            f"`questions` must be some of {', '.join(QUESTIONS)}, got {', '.join(unknown) or 'none'}. Rename them."
        )
    if option["examples"] < 0 or option["tests"] < 0:
        raise UsageError(
            f"`examples` and `tests` must be >= 0, got {option['examples']} and {option['tests']}. 0 is for all."
        )
    return option


def _tasks(
    sources: Sequence[Source], setting: Setting, seed: int, option: Mapping[str, Any]
) -> Iterator[tuple[Task, str, float]]:
    """All sets that are wanted and can be made, one at a time: the set, its variant, and the share done before."""
    foreign: dict[str, Mapping[str, Inputs]] = {}
    for place, (source, variant) in enumerate(product(sources, VARIANTS)):
        asked = any(variant in QUESTIONS[it].variants for it in option["questions"])
        if not asked or not _wanted(source.name, variant, option):
            continue
        if source.name not in foreign:
            foreign = {source.name: _foreign(source, setting, seed, option) if "novelty" in option["questions"] else {}}
        task = make_task(
            source,
            variant,
            seed,
            examples=option["examples"],
            tests=option["tests"],
            foreign=foreign[source.name],
        )
        if task is not None:
            yield task, variant, place / len(sources) / len(VARIANTS)


def _foreign(source: Source, setting: Setting, seed: int, option: Mapping[str, Any]) -> dict[str, Inputs]:
    """Inputs of no class of a data set: an archive's own, and other data sets or altered rows."""
    count = option["tests"] // 2 or len(source.data.x_test)
    found = foreign_inputs(source.data, setting.data_dir, count, np.random.default_rng([seed, 2]))
    own = {} if source.foreign is None else {novelty.OWN: source.foreign}
    return own | {name: np.asarray(x) for name, x in found.items() if not is_noise(name)}


def _installed(peers: Sequence[str], skipped: dict[str, str]) -> list[str]:
    """The peers whose library is there; the others are named as not run."""
    missing = {name: f"not installed: pip install 'neural-slots[{extra}]'" for name, extra in missing_extras(peers)}
    skipped |= missing
    return [name for name in peers if name not in missing]


def missing_extras(peers: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Peers whose library is not installed, and the extra that brings it."""
    for name in peers:
        module = (
            "pytorch_ood" if name in novelty.PEERS and name != "knn" else "igraph" if name == "leiden" else "sklearn"
        )
        if find_spec(module) is None:
            yield name, "peers"


def _wanted(source: str, variant: str, option: Mapping[str, Any]) -> bool:
    """Whether a pattern names this variant of a data set."""
    return any(fnmatch(task_name(source, variant), pattern) for pattern in option["sets"])


def _described(task: Task) -> dict[str, Any]:
    return {
        "examples": len(task.y),
        "classes": task.n_classes,
        "features": task.x.shape[1],
        "test examples": len(task.y_test),
        "foreign examples": {name: len(x) for name, x in task.foreign.items()},
    }


PROTOCOL = Protocol(
    name="transfer",
    title="Defaults on many data sets",
    about=(
        "Every part of this project with its default settings, on all data sets that are there and on harder ones "
        "made of them: 5, 15 or 50 examples a class; classes unbalanced 1 to 100; pairs of classes merged; weak "
        "features (16 random directions); images of five domains mixed; each class in four turns as four classes. "
        "Methods of others may be tuned inside their training part, and be told more; notes say what. Rank: 1 is "
        "the best of a set, equal figures share a rank, mean over the sets. Leads: share of the sets on which "
        "nobody is better. Seconds are the processor's, tuning included. Vectors: slots, prototypes, neighbours or "
        "class weights that are kept. Novelty: near are held-out classes and foreign rows that an archive brings, "
        "far are other data sets or shuffled rows; alarms: familiar rows called novel at the promised 5 %. Found: "
        "clusters as a multiple of the classes. Classes nobody has named: three quarters of the classes have "
        "labels, for a tenth of their examples. Updates: half of the training part is learned, the other half "
        "comes unlabelled, with new classes, from another domain, both or neither, and 20 to 500 labels are asked; "
        "drop: accuracy lost on the old part; behind: on the new part, below the model that was left alone. "
        "Stream: classes in ten parts, one pass."
    ),
    columns=(
        Column("rank", "mean rank", "score", "lower"),
        Column("first", "leads"),
        Column("accuracy", "accuracy"),
        Column("worth", "share"),
        Column("auroc", "AUROC"),
        Column("fpr95", "FPR, 95 % of familiar accepted", better="lower"),
        Column("alarms", "alarms at 5 %", better=None),
        Column("nmi", "NMI", "score"),
        Column("acc", "accuracy (Hungarian)"),
        Column("acc_old", "classes with labels"),
        Column("acc_new", "new classes"),
        Column("found", "found", "score", None),
        Column("both", "old and new part, after"),
        Column("old_before", "old, before", better=None),
        Column("old_after", "old, after"),
        Column("new_before", "new, before", better=None),
        Column("new_after", "new, after"),
        Column("drop", "drop", better="lower"),
        Column("worst_drop", "worst drop", better="lower"),
        Column("behind", "behind", better="lower"),
        Column("worst_behind", "worst behind", better="lower"),
        Column("changed", "matched answers changed", "count", "lower"),
        Column("asked", "labels asked", "count", None),
        Column("purity", "of the query's class"),
        Column("purity_by_size", "weighed by size"),
        Column("expected", "expected by the model", better=None),
        Column("rows", "rows a query", "count", None),
        Column("final", "accuracy after the last part"),
        Column("bytes", "memory", "bytes", "lower"),
        Column("seconds", "seconds", "seconds", "lower"),
        Column("size", "vectors", "count", None),
        Column("sets", "sets", "count", None),
    ),
    headline="rank",
    peers=(*classifiers.CLASSIFIERS, *novelty.PEERS, *clusters.CLUSTERINGS, *updates.PEERS, *streams.PEERS),
    defaults={
        "sets": ["*"],
        "archives": "",
        "questions": list(QUESTIONS),
        "examples": 1000,
        "tests": 1000,
        "network_examples": 4000,
    },
    run_seed=run_seed,
    files=source_files,
    findings=findings,
    default_data="digits",
)
