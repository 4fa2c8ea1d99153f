"""How many streams of events are open: each holds a connection for as long as its client likes."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator

from protocols.service.callers import Caller


class TooMany(Exception):  # noqa: N818  # a state of the service: the client may come again
    """One more would be too many.

    Parameters
    ----------
    detail : str
        What was wrong, and what to do.
    status : int
        429 where the key has too many, 503 where all together are.
    """

    def __init__(self, detail: str, status: int) -> None:
        super().__init__(detail)
        self.detail, self.status = detail, status


class Streams:
    """The open streams of events, for the event loop alone.

    Parameters
    ----------
    per_key : int
        Of one key at a time (count); whoever needs no key is bounded by the other alone.
    most : int
        Of all at a time (count).

    Examples
    --------
    >>> from protocols.service.callers import Role
    >>> anna, streams = Caller(1, "anna", Role.READ), Streams(per_key=1, most=9)
    >>> with streams.held(anna):
    ...     try:
    ...         streams.held(anna).__enter__()
    ...     except TooMany as error:
    ...         error.status
    429
    >>> len(streams)
    0
    """

    def __init__(self, *, per_key: int, most: int) -> None:
        self._per_key, self._most = per_key, most
        self._open: Counter[int | None] = Counter()

    def __len__(self) -> int:
        """Count them."""
        return self._open.total()

    @contextlib.contextmanager
    def held(self, caller: Caller) -> Iterator[None]:
        """Hold one as long as the block lasts.

        Parameters
        ----------
        caller : Caller
            Whose it is.

        Raises
        ------
        TooMany
            If there is no room for it.
        """
        if caller.key_id is not None and self._open[caller.key_id] >= self._per_key:
            raise TooMany(
                f"The key {caller.name!r} may have {self._per_key} streams of events open. Close one, or come again.",
                429,
            )
        if len(self) >= self._most:
            raise TooMany("As many streams of events are open as there may be. Come again later.", 503)
        self._open[caller.key_id] += 1
        try:
            yield
        finally:
            self._open[caller.key_id] -= 1
            if not self._open[caller.key_id]:
                del self._open[caller.key_id]
