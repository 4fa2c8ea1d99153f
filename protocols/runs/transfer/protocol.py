"""The `transfer` protocol: everything by default, on many data sets and what can be made of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatch
from itertools import product
from typing import Any, Final

from protocols.harness.outcome import Column, Row, SeedOutcome
from protocols.harness.protocol import Protocol, Setting
from protocols.runs.transfer import classifiers
from protocols.runs.transfer.sources import Source, find_sources, source_files
from protocols.runs.transfer.summary import promise, rank_rows
from protocols.runs.transfer.variants import VARIANTS, Task, make_task, task_name
from slots.errors import UsageError
from slots.progress import Progress

Question = Callable[[Task, int, Sequence[str]], list[Row]]

QUESTIONS: Final[Mapping[str, Question]] = {
    "accuracy": classifiers.classifier_rows,
}
"""Name to the function that measures it on one set."""


def run_seed(setting: Setting, seed: int, progress: Progress) -> SeedOutcome:
    """Every question on every set; see `PROTOCOL`."""
    option = _options(setting)
    sources, missing = find_sources(setting, lambda name: any(_wanted(name, it, option) for it in VARIANTS))
    rows, sets = list[Row](), dict[str, dict[str, int]]()
    for task, share in _tasks(sources, seed, option):
        sets[task.name] = _described(task)
        for place, name in enumerate(option["questions"]):
            progress(f"{task.name}, {name}", share + place / len(option["questions"]) / len(sources) / len(VARIANTS))
            rows += QUESTIONS[name](task, seed, setting.peers)
    if not sets:
        raise UsageError(f'`sets` must name sets that can be made, got {option["sets"]}. Try ["digits*"].')
    return SeedOutcome([*summaries(rows), *rows], facts={"sets": sets}, skipped=missing)


def summaries(rows: Sequence[Row]) -> list[Row]:
    """The tables over all sets, those of questions that were asked."""
    return rank_rows(rows, classifiers.GROUP, "accuracy", also=("seconds", "size"))


def findings(seeds: Sequence[SeedOutcome]) -> list[str]:
    """What all seeds say together."""
    found = [
        promise(seeds, group=classifiers.GROUP, method=method, wanted=classifiers.level())
        for method in (classifiers.FIT, classifiers.ESTIMATOR)
    ]
    return found if any(row.group == classifiers.GROUP for seed in seeds for row in seed.rows) else []


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


def _tasks(sources: Sequence[Source], seed: int, option: Mapping[str, Any]) -> Iterator[tuple[Task, float]]:
    """All sets that are wanted and can be made, one at a time, with the share of the suite that is done before."""
    for place, (source, variant) in enumerate(product(sources, VARIANTS)):
        if _wanted(source.name, variant, option):
            task = make_task(source, variant, seed, examples=option["examples"], tests=option["tests"])
            if task is not None:
                yield task, place / len(sources) / len(VARIANTS)


def _wanted(source: str, variant: str, option: Mapping[str, Any]) -> bool:
    """Whether a pattern names this variant of a data set."""
    return any(fnmatch(task_name(source, variant), pattern) for pattern in option["sets"])


def _described(task: Task) -> dict[str, int]:
    return {
        "examples": len(task.y),
        "classes": task.n_classes,
        "features": task.x.shape[1],
        "test examples": len(task.y_test),
    }


PROTOCOL = Protocol(
    name="transfer",
    title="Defaults on many data sets",
    about=(
        "Every method of this project with its default settings, on all data sets that are there and on harder ones "
        "made of them: 5, 15 or 50 examples a class; classes unbalanced 1 to 100; pairs of classes merged; weak "
        "features (16 random directions); images of five domains mixed; each class in four turns as four classes. "
        "Methods of others are tuned inside their training part. Rank: 1 is the best of a set, equal figures share a "
        "rank, mean over the sets. Leads: share of the sets on which nobody is better. Seconds are the processor's, "
        "tuning included. Vectors: slots, prototypes, neighbours or class weights that are kept."
    ),
    columns=(
        Column("rank", "mean rank", "score", "lower"),
        Column("first", "leads"),
        Column("accuracy", "accuracy"),
        Column("worth", "share"),
        Column("seconds", "seconds", "seconds", "lower"),
        Column("size", "vectors", "count", None),
        Column("sets", "sets", "count", None),
    ),
    headline="rank",
    peers=tuple(classifiers.CLASSIFIERS),
    defaults={
        "sets": ["*"],
        "archives": "",
        "questions": list(QUESTIONS),
        "examples": 3000,
        "tests": 2000,
        "network_examples": 6000,
    },
    run_seed=run_seed,
    files=source_files,
    findings=findings,
    default_data="digits",
)
