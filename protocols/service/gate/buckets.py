"""How many requests a key may send: a bucket of tokens for each."""

from __future__ import annotations

import time
from dataclasses import dataclass, field


@dataclass
class Buckets:
    """A token bucket for each key, filled all the time and full after two seconds.

    Parameters
    ----------
    per_second : float
        Tokens a second; 0 for no bound.
    """

    per_second: float
    _levels: dict[int, tuple[float, float]] = field(default_factory=dict)

    def take(self, key: int, now: float | None = None) -> float:
        """Take a token.

        Parameters
        ----------
        key : int
            Whose bucket.
        now : float, optional
            Seconds on any clock that does not go back. Default: `time.monotonic`.

        Returns
        -------
        float
            0 if there was one; else the time until there will be (seconds).

        Examples
        --------
        >>> buckets = Buckets(1.0)
        >>> [buckets.take(7, now=5.0) for _ in range(3)], buckets.take(7, now=6.0), buckets.take(8, now=6.0)
        ([0.0, 0.0, 1.0], 0.0, 0.0)
        """
        if not self.per_second:
            return 0.0
        now = time.monotonic() if now is None else now
        full = max(1.0, 2 * self.per_second)
        level, at = self._levels.get(key, (full, now))
        level = min(full, level + (now - at) * self.per_second)
        if level < 1:
            self._levels[key] = (level, now)
            return (1 - level) / self.per_second
        self._levels[key] = (level - 1, now)
        return 0.0
