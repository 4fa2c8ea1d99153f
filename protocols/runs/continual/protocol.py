"""The `continual` protocol: learning from a stream in one pass, and what is left of it at the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from protocols.harness.encoders import Features, make_encoder
from protocols.harness.outcome import Column, Curve, Row, SeedOutcome
from protocols.harness.protocol import Protocol, Setting
from protocols.runs.continual.metrics import accuracy_matrix, retention
from protocols.runs.continual.peers import CONTINUAL_PEERS, Learner, StreamFacts, find_peers
from protocols.runs.continual.streams import KINDS, Stream, make_stream
from slots.continual.learner import ContinualSlots
from slots.errors import UsageError
from slots.progress import Progress

_OURS = "slots: ContinualSlots"

_NOTE = (
    "Told how long a stream shorter than 60,000 examples is: so long it lets examples wait and slots prove themselves."
)

_BATCH = 100  # examples that everybody is handed at once
_GROUPS = {"class": "new classes", "blurry": "blurred, no borders", "domain": "new domains"}
_MISSING = {"avalanche": "not installed: pip install 'neural-slots[avalanche]'"}


@dataclass(frozen=True)
class _Features:
    """What everybody sees."""

    train: Features
    test: Features
    in_bytes: bool


@dataclass(frozen=True)
class _Method:
    """One learner to be put through the streams."""

    name: str
    make: Callable[[StreamFacts], Learner]
    ours: bool = False
    note: str = ""


def run_seed(setting: Setting, seed: int, progress: Progress) -> SeedOutcome:
    """Every method on every stream of one seed."""
    option = _options(setting)
    data = setting.data
    if not (data.y_test >= 0).any() or not (data.y_train >= 0).any():
        raise UsageError("`data` must have labelled examples to learn from and to test on, got none. Take other data.")
    kinds = [part.strip() for part in option["streams"].split(",")]
    streams = []
    for kind in kinds:
        limit = option["examples"] if kind == "class" else option["more_examples"]
        streams.append(
            make_stream(
                kind,
                data.y_train,
                data.y_test,
                n_tasks=option["tasks"],
                seed=seed,
                blur=option["blur"],
                n_examples=limit,
            )
        )
    features = _features(setting, streams[0], seed, progress)
    methods = list(_methods(setting))
    rows: list[Row] = []
    curves: list[Curve] = []
    facts: dict[str, Any] = {}
    skipped: dict[str, str] = {}
    done, steps = 0, len(streams) * len(methods)
    for stream in streams:
        facts[_GROUPS[stream.kind]] = _described(stream)
        for method in methods:
            progress(f"{_GROUPS[stream.kind]}: {method.name}", done / steps)
            done += 1
            try:
                learner = method.make(_told(stream, features, seed))
            except ImportError:
                skipped["avalanche"] = _MISSING["avalanche"]
                continue
            row, curve, table = _run(method, learner, stream, features)
            rows.append(row)
            curves.append(curve)
            facts[_GROUPS[stream.kind]]["accuracy of each task after each part"][method.name] = table
    return SeedOutcome(rows, curves, facts, skipped)


def _options(setting: Setting) -> dict[str, Any]:
    option = {key: PROTOCOL.option(setting, key) for key in PROTOCOL.defaults}
    for key in ("examples", "more_examples"):
        if option[key] < 0:
            raise UsageError(f"`{key}` must be >= 0, got {option[key]}. 0 takes all examples.")
    return option


def _features(setting: Setting, stream: Stream, seed: int, progress: Progress) -> _Features:
    """Rows from an encoder that has seen no more than the first part of the stream."""
    data, first = setting.data, np.sort(stream.parts[0])
    encoder = make_encoder(setting, data.x_train[first], data.y_train[first], seed, progress)
    progress("features", 0.0)
    return _Features(encoder(data.x_train), encoder(data.x_test), in_bytes=encoder.name == "pixels")


def _methods(setting: Setting) -> Iterator[_Method]:
    yield _Method(_OURS, _ours, ours=True, note=_NOTE)
    for name in setting.peers:
        for peer in find_peers(name):
            yield _Method(peer.method, peer.make, note=peer.note)


def _told(stream: Stream, features: _Features, seed: int) -> StreamFacts:
    return StreamFacts(
        n_features=features.train.shape[1],
        n_classes=int(stream.targets.max()) + 1,
        n_examples=sum(map(len, stream.parts)),
        images_in_bytes=features.in_bytes,
        seed=seed,
    )


def _ours(facts: StreamFacts) -> Learner:
    """Defaults, but for streams that are too short for them."""
    pending, probation = min(1500, max(50, facts.n_examples // 20)), min(24_000, 2 * facts.n_examples // 5)
    return _Ours(ContinualSlots(pending=pending, probation=probation, random_state=facts.seed))


class _Ours:
    """Our learner as a peer."""

    def __init__(self, learner: ContinualSlots) -> None:
        self.learner = learner
        self.matched = np.zeros(0, bool)

    def learn(self, rows: Features, labels: npt.NDArray[np.int64]) -> None:
        self.learner.partial_fit(rows, labels)

    def predict(self, rows: Features) -> npt.NDArray[np.int64]:
        found = self.learner.decide(rows)
        self.matched = found.matched
        return np.asarray(found.labels, np.int64)

    @property
    def nbytes(self) -> int:
        return self.learner.nbytes


def _run(
    method: _Method, learner: Learner, stream: Stream, features: _Features
) -> tuple[Row, Curve, list[list[float]]]:
    """Put a learner through a stream and ask it after each part."""
    answers, matched, largest = [], [], 0
    everything = np.concatenate(stream.tests)
    learn_s = ask_s = 0.0
    for part in range(len(stream.parts)):
        started = time.perf_counter()
        for rows in stream.batches(part, _BATCH):
            learner.learn(features.train[rows], stream.targets[rows])
            largest = max(largest, learner.nbytes)
        learn_s += time.perf_counter() - started
        asked = everything if isinstance(learner, _Ours) else np.concatenate(stream.tests[: stream.known(part)])
        given = np.full(len(features.test), -1, np.int64)
        started = time.perf_counter()
        given[asked] = learner.predict(features.test[asked])
        answers.append(given)
        ask_s += time.perf_counter() - started
        largest = max(largest, learner.nbytes)
        if isinstance(learner, _Ours):
            matched.append(np.isin(np.arange(len(given)), asked[learner.matched]))
    known = [stream.known(part) for part in range(len(stream.parts))]
    found = retention(answers, matched, stream.test_targets, stream.tests, known)
    figures = asdict(found) | {"memory": largest, "learn_s": learn_s, "ask_s": ask_s / len(answers)}
    table = accuracy_matrix(answers, stream.test_targets, stream.tests)
    tests = [np.concatenate(stream.tests[:count]) for count in known]
    curve = Curve(
        chart=f"Accuracy on all that can be asked: {_GROUPS[stream.kind]}",
        method=method.name,
        x=[float(part + 1) for part in range(len(answers))],
        y=[float((a[it] == stream.test_targets[it]).mean()) for a, it in zip(answers, tests, strict=True)],
        x_label="parts of the stream learned",
        y_label="accuracy",
        ours=method.ours,
    )
    row = Row(method.name, figures, method.ours, _GROUPS[stream.kind], method.note)
    return row, curve, table.tolist()


def _described(stream: Stream) -> dict[str, Any]:
    return {
        "classes of each part": [list(group) for group in stream.groups],
        "training examples of each part": [len(part) for part in stream.parts],
        "test examples of each task": [len(test) for test in stream.tests],
        "accuracy of each task after each part": {},
    }


PROTOCOL = Protocol(
    name="continual",
    title="Continual learning",
    about=(
        "A stream is learned in a single pass and in small batches; after each part every method answers the same test "
        "examples, without being told which task they belong to. New classes: each class comes in one part and never "
        "again. Blurred: a tenth of each class comes at any time. New domains: the labels stay (first or second class "
        "of a pair) and what they look like changes. Final: accuracy on all tasks at the end; average: accuracy on the "
        "tasks so far, averaged over the parts; forgetting: how far each task ends below its best; backward transfer: "
        "how far it ends from where it stood right after its part; lost: right after the part, wrong at the end. "
        "Matched answers are those a slot vouches for: given as final, so their forgetting is zero by construction. "
        "Memory: the largest number of bytes kept between two batches, networks and examples that wait included."
    ),
    columns=(
        Column("final", "final accuracy"),
        Column("average", "average accuracy"),
        Column("forgetting", "forgetting", better="lower"),
        Column("backward", "backward transfer"),
        Column("lost", "right answers lost", better="lower"),
        Column("matched_lost", "matched answers changed", better="lower"),
        Column("matched_share", "matched", better=None),
        Column("matched_right", "right when matched"),
        Column("memory", "memory", "bytes", "lower"),
        Column("learn_s", "learning", "seconds", "lower"),
        Column("ask_s", "answering once", "seconds", "lower"),
    ),
    headline="final",
    peers=tuple(CONTINUAL_PEERS),
    defaults={
        "streams": ",".join(KINDS),
        "tasks": 5,
        "blur": 0.1,
        "examples": 0,
        "more_examples": 6000,
    },
    run_seed=run_seed,
)
