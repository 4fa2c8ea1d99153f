"""The client: what people do with a service, as calls."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from slots.client.documents import (
    Group,
    ItemReceipt,
    Job,
    ServedAnswer,
    ServedAnswers,
    ServedSlot,
    StoredItem,
    StreamReceipt,
    group,
    record,
    served_answer,
    stream_receipt,
)
from slots.client.generations import Generations
from slots.client.inputs import as_inputs, as_line, in_requests, in_turns
from slots.errors import OutdatedError, UsageError
from slots.progress import Progress, silent


class Client(Generations):
    """A client of ``slots serve``.

    Calls that read, and those that the service keeps from being done twice (an ``Idempotency-Key`` goes with them), are
    sent again where the connection breaks or the service is busy. Errors of the service are the package's own.

    Parameters
    ----------
    address : str, default "http://127.0.0.1:8080"
        Of the service.
    model : str, optional
        The model's name there. Default: the only one that the service serves.
    key : str, optional
        An API key, where the service asks for one.
    timeout : float, default 30
        How long one try of a request may take (seconds).
    retries : int, default 5
        How often a request that failed is sent again (count).

    Raises
    ------
    MissingExtraError
        If httpx is not installed (extra ``serve``).
    UsageError
        If the address is none.

    Examples
    --------
    >>> client = slots.Client("http://127.0.0.1:8080")                       # doctest: +SKIP
    >>> answers = client.predict(x)                                          # doctest: +SKIP
    >>> answers.generation, answers.answers[0].label                         # doctest: +SKIP
    (0, 'red')
    >>> receipts = client.items(x, ids=[f"camera/{n}" for n in range(len(x))])  # doctest: +SKIP
    >>> receipts[0].id                                                       # doctest: +SKIP
    'camera/0'
    >>> groups = client.review()                                             # doctest: +SKIP
    >>> client.labels({group: "white" for group in groups}) > 0              # doctest: +SKIP
    True
    >>> job = client.updates()                                               # doctest: +SKIP
    >>> job.state, job.result["proven"]                                      # doctest: +SKIP
    ('done', True)
    >>> client.predict(x).generation                                         # doctest: +SKIP
    1
    >>> client.undo()["number"]                                              # doctest: +SKIP
    2
    """

    def predict(self, x: Any, *, false_alarm_rate: float | None = None) -> ServedAnswers:
        """Answer inputs, and say how foreign they are.

        Many inputs go in several requests, of up to 64 images or texts or 1,024 rows, and 4 MiB. One generation answers
        all.

        Parameters
        ----------
        x : array or sequence
            Feature rows of shape (example, feature); texts; image files as bytes or paths; or uint8 images of shape
            (example, height, width[, channel]).
        false_alarm_rate : float in (0, 1), optional
            Share of familiar inputs that may be called novel. Default: the service's.

        Returns
        -------
        ServedAnswers

        Raises
        ------
        OutdatedError
            If other generations answered again and again before the last answer came. Ask again.
        """
        query = {"rate": false_alarm_rate}
        parts = list(in_requests(as_inputs(x)))
        found: list[Any] = [self._ask("POST", "/predict", body={"inputs": part}, query=query) for part in parts]
        newest = max(it["generation"] for it in found)
        for place, part in enumerate(parts):
            if found[place]["generation"] != newest:
                found[place] = self._ask("POST", "/predict", body={"inputs": part}, query=query)
        if any(it["generation"] != newest for it in found):
            raise OutdatedError("Other generations answered before the last answer came. Ask again.")
        return ServedAnswers(
            found[0]["model"], newest, tuple(served_answer(it) for part in found for it in part["answers"])
        )

    def novelty(self, x: Any, *, false_alarm_rate: float | None = None) -> list[ServedAnswer]:
        """How foreign inputs are: `ServedAnswer.p_value`, ``score``, ``novel`` and ``reason`` of each.

        Parameters
        ----------
        x : array or sequence
            As `predict` takes it.
        false_alarm_rate : float in (0, 1), optional
            Share of familiar inputs that may be called novel. Default: the service's.

        Returns
        -------
        list of ServedAnswer

        Raises
        ------
        UsageError
            If the model has no calibration.
        """
        found = list(self.predict(x, false_alarm_rate=false_alarm_rate).answers)
        if any(it.p_value is None for it in found):
            raise UsageError(
                f"The model {self.model!r} cannot say how foreign inputs are. Fit it with held-out examples."
            )
        return found

    def items(self, x: Any, *, ids: Sequence[str | None] | None = None, store: str | None = None) -> list[ItemReceipt]:
        """Answer inputs and keep them; what is acknowledged is on the service's disk.

        Parameters
        ----------
        x : array or sequence
            As `predict` takes it.
        ids : sequence of str or None, optional
            Of each input the id in your own store. Default: the SHA-256 of its content.
        store : str, optional
            What is kept, such as ``unmatched:all,matched:5%``, ``all`` or ``none``. Default: the service's policy.

        Returns
        -------
        list of ItemReceipt
            In the order of the inputs.
        """
        body = {"inputs": as_inputs(x), "ids": None if ids is None else list(ids), "store": store}
        found = self._ask("POST", "/items", body=body, key=str(uuid.uuid4()))
        return [record(ItemReceipt, it, answer=served_answer(it["answer"])) for it in found["items"]]

    def stream(self, items: Iterable[Any], *, store: str | None = None) -> Iterator[StreamReceipt]:
        """Answer and keep items one after the other, as many as there are.

        They are sent 64 at a time, so neither side ever holds many. Whatever has no receipt when a connection breaks is
        sent again; it is kept once. An item that is wrong has a receipt that says so, and the others go on.

        Parameters
        ----------
        items : iterable
            Inputs, each one that `predict` would take in a list, or pairs of an id and an input.
        store : str, optional
            What is kept, such as ``unmatched:all,matched:5%``, ``all`` or ``none``. Default: the service's policy.

        Yields
        ------
        StreamReceipt
            In the order of the items, when they are on the service's disk.
        """
        path, place = self._path("/items/stream"), 0
        for lines in in_turns(map(as_line, items)):
            for receipt in self._transport.exchange(path, lines, query={"store": store}):
                yield stream_receipt(receipt, place)
                place += 1

    def stored(
        self, *, state: str | None = None, answer: str | None = None, limit: int | None = None
    ) -> list[StoredItem]:
        """Items of the inbox in the order in which they came in.

        Parameters
        ----------
        state : {"open", "labelled", "learned", "set_aside"}, optional
            Only those.
        answer : {"matched", "ambiguous", "unmatched"}, optional
            Only those.
        limit : int, optional
            So many at most. Default: all.

        Returns
        -------
        list of StoredItem
        """
        found: list[StoredItem] = []
        after: int | None = None
        while limit is None or len(found) < limit:
            most = 1000 if limit is None else min(1000, limit - len(found))
            query = {"state": state, "answer": answer, "after": after, "limit": most}
            page = self._ask("GET", "/items", query=query)
            found += [record(StoredItem, it) for it in page["items"]]
            after = page["next"]
            if after is None:
                break
        return found

    def review(self, *, budget: int | None = None, wait: float = 600.0, progress: Progress = silent) -> list[Group]:
        """Group what is unmatched so that few labels settle most of it.

        Parameters
        ----------
        budget : int, optional
            Groups at most. Default: as many as earn their place.
        wait : float, default 600
            For the job (seconds).
        progress : callable, optional
            ``progress(step, share)``, told what the job does.

        Returns
        -------
        list of Group
            Those whose label covers most first.
        """
        job = self._job("/review", {"budget": budget}, wait, progress)
        assert job.result is not None
        return self.groups(job.result["review"])

    def groups(self, review: int | None = None, *, state: str | None = None) -> list[Group]:
        """Groups of a query list.

        Parameters
        ----------
        review : int, optional
            Its number. Default: the newest.
        state : {"open", "labelled", "skipped"}, optional
            Only those.

        Returns
        -------
        list of Group
            Those whose label covers most first.
        """
        number = self._ask("GET", "/review")["number"] if review is None else review
        found: list[Group] = []
        after: int | None = -1
        while after is not None:
            query = {"state": state, "after": after, "limit": 200}
            page = self._ask("GET", f"/review/{number}/groups", query=query)
            found += map(group, page["groups"])
            after = page["next"]
        return found

    def labels(self, labels: Mapping[str | Group, str | None], *, sure: bool = True) -> int:
        """Say what items or groups are: all of it, or nothing where one is wrong.

        Parameters
        ----------
        labels : mapping of str or Group to str or None
            Label by the item's id, or by the group; None takes your own label of an item back.
        sure : bool, default True
            Labels that nobody is sure of teach the model nothing.

        Returns
        -------
        int
            Items that got a label, or whose label was taken back.
        """
        given = [
            {"label": label, "sure": sure, **({"group": what.number} if isinstance(what, Group) else {"item": what})}
            for what, label in labels.items()
        ]
        return int(self._ask("POST", "/labels", body={"labels": given}, key=str(uuid.uuid4()))["items"])

    def updates(
        self,
        *,
        dry_run: bool = False,
        spread: bool = False,
        budget: int | None = None,
        wait: float = 600.0,
        progress: Progress = silent,
    ) -> Job:
        """Learn what was labelled: a new generation, in which no matched answer is changed.

        Parameters
        ----------
        dry_run : bool, default False
            Only find out.
        spread : bool, default False
            Spread the labels over all unmatched items: far more accurate from few labels.
        budget : int, optional
            Make clusters too, so many at most, of what nobody has labelled.
        wait : float, default 600
            For the job (seconds).
        progress : callable, optional
            ``progress(step, share)``, told what the job does.

        Returns
        -------
        Job
            That is done; ``result["proven"]`` says whether the promise on matched answers is proven.

        Raises
        ------
        SlotsError
            If the job failed.
        ServiceError
            If it was cancelled, interrupted, or is not done within ``wait``; it goes on then.
        """
        return self._job("/updates", {"dry_run": dry_run, "spread": spread, "budget": budget}, wait, progress)

    def slots(self, *, label: str | None = None, order: str = "label") -> Iterator[ServedSlot]:
        """The slots that answer now, of one generation.

        Parameters
        ----------
        label : str, optional
            Only those of this label.
        order : {"label", "size", "newest", "lately"}
            What comes first.

        Yields
        ------
        ServedSlot

        Raises
        ------
        OutdatedError
            If another generation answers before the last one came: the numbers may differ. Ask again.
        """
        start, generation = 0, None
        while True:
            query = {"label": label, "order": order, "start": start, "limit": 500, "generation": generation}
            found = self._ask("GET", "/slots", query=query)
            generation = found["generation"]
            for it in found["slots"]:
                yield record(ServedSlot, it, generation=generation)
            start += len(found["slots"])
            if not found["slots"] or start >= found["found"]:
                return
