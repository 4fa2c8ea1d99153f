"""Question 5: classes that come one after the other and never again, in one pass."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from protocols.harness.outcome import Row
from protocols.runs.continual.peers import CONTINUAL_PEERS, Learner, StreamFacts
from protocols.runs.continual.streams import make_stream
from protocols.runs.transfer.attempts import attempt
from protocols.runs.transfer.variants import Features, Task
from slots.continual.learner import ContinualSlots
from slots.shapes import Ids

GROUP, OURS = "stream of classes", "ContinualSlots"
PEERS = ("ncm", "slda", "rp_ridge")

_PARTS, _BATCH = 10, 100


class _Slots(Learner):
    """`ContinualSlots` with its defaults, as the protocol of streams talks to a learner."""

    def __init__(self, seed: int) -> None:
        self.slots = ContinualSlots(random_state=seed)

    def learn(self, rows: Features, labels: Ids) -> None:
        """Take the next examples."""
        self.slots.partial_fit(rows, labels)

    def predict(self, rows: Features) -> Ids:
        """Class of each row."""
        found: Ids = self.slots.predict(rows)
        return found

    @property
    def nbytes(self) -> int:
        """Bytes of all that it keeps."""
        return int(self.slots.nbytes)


def stream_rows(task: Task, seed: int, peers: Sequence[str]) -> list[Row]:
    """Accuracy after the last part, bytes kept and seconds of one pass over the training part, class after class.

    Parameters
    ----------
    task : Task
        With four classes or more; fewer make no stream.
    seed : int
        Of the order of classes and examples.
    peers : sequence of str
        Some of `PEERS`, keys of `protocols.runs.continual.peers.CONTINUAL_PEERS`.

    Returns
    -------
    list of Row
    """
    if task.n_classes < 4:
        return []
    number = np.random.default_rng([seed, 5]).permutation(task.n_classes)
    y, y_test = number[task.y], number[task.y_test]
    stream = make_stream("class", y, y_test, n_tasks=min(_PARTS, task.n_classes // 2), seed=seed)
    facts = StreamFacts(task.x.shape[1], task.n_classes, len(y), images_in_bytes=False, seed=seed)
    learners: list[tuple[str, Learner, str, bool]] = [(OURS, _Slots(seed), "", True)]
    learners += [
        (it.method, it.make(facts), it.note, False) for name in peers if name in PEERS for it in CONTINUAL_PEERS[name]
    ]
    rows = []
    for name, learner, note, ours in learners:

        def figures(learner: Learner = learner) -> dict[str, float]:
            started = time.process_time()
            for part in range(len(stream.parts)):
                for batch in stream.batches(part, _BATCH):
                    learner.learn(task.x[batch], y[batch])
            right = float((learner.predict(task.x_test) == y_test).mean())
            return {"final": right, "bytes": float(learner.nbytes), "seconds": time.process_time() - started}

        rows.append(attempt(figures, name, ours=ours, group=GROUP, task=task.name, note=note))
    return rows
