"""Test martingales: a capital that bets against uniform p-values and grows only where they are not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from slots.errors import DataError, UsageError


@dataclass(frozen=True)
class Bets:
    """What a capital of 1 becomes, for a p-value in (0, 1]; each bet has mean 1 under the uniform distribution.

    Parameters
    ----------
    slopes : tuple of floats in [-2, 2]
        Linear bets ``1 + slope (p - 1/2)``, the simple jumper's. Negative ones win where inputs become a little more
        novel, positive ones where they become less so; 0 keeps its capital.
    powers : tuple of floats in (0, 1]
        Power bets ``power p^(power - 1)`` (Vovk, Nouretdinov and Gammerman 2003), which win much where few inputs are
        very novel.

    Raises
    ------
    UsageError
        If there is no bet, or a bet could become negative.

    Examples
    --------
    >>> Bets((-1, 0, 1)).odds(0.25)
    [1.25, 1.0, 0.75]
    >>> Bets((), (0.5,)).odds(0.0625)
    [2.0]
    """

    slopes: tuple[float, ...] = (-1.0, 0.0, 1.0)
    powers: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not self.slopes and not self.powers:
            raise UsageError("`slopes` and `powers` must hold at least one bet between them.")
        if not all(-2 <= slope <= 2 for slope in self.slopes):
            raise UsageError(f"`slopes` must lie in [-2, 2], got {self.slopes}: beyond, a bet can lose more than all.")
        if not all(0 < power <= 1 for power in self.powers):
            raise UsageError(f"`powers` must lie in (0, 1], got {self.powers}.")

    def __len__(self) -> int:
        return len(self.slopes) + len(self.powers)

    def odds(self, p: float) -> list[float]:
        """What each bet pays.

        Parameters
        ----------
        p : float in (0, 1]
            One p-value.

        Returns
        -------
        list of floats
            One a bet, slopes first; >= 0.
        """
        return [1 + slope * (p - 0.5) for slope in self.slopes] + [power * p ** (power - 1) for power in self.powers]


class SimpleJumper:
    """The simple jumper, in logarithms; a share of its capital may sleep and wake little by little.

    Parameters
    ----------
    bets : Bets, optional
        What capital is put on. Default: the slopes -1, 0 and 1 of the paper.
    jump : float in [0, 1], default 0.01
        Share of each bet's capital that is spread over all bets before an item.
    asleep : float in [0, 1), default 0
        Share of the capital that sleeps at the beginning. 0 is the simple jumper as published.
    wake : float in (0, 1], default 0.5
        At item ``n = 0, 1, ...`` the share ``wake / (n + 100)`` of what still sleeps wakes, spread over all bets.

    Raises
    ------
    UsageError
        If a share lies outside its range.

    Notes
    -----
    Algorithm 1 of Vovk, Petej, Nouretdinov, Ahlberg, Carlsson and Gammerman, "Retrain or not retrain: conformal test
    martingales for change-point detection" (COPA 2021); algorithm 8.1 of the second edition of "Algorithmic learning in
    a random world". With uniform independent p-values the capital ``S_n`` is a
    martingale that starts at 1, so ``P(S_n >= c for some n) <= 1 / c`` (Ville 1939): at a threshold of 100 at most one
    familiar stream in a hundred ever raises an alarm, however long one looks.

    What is published loses its capital exponentially while nothing happens and must win it back first: after 20,000
    familiar inputs half a deviation took eight times as long. Sleeping capital cannot be lost. The whole is the mean,
    over the item at which a jumper begins, of fresh jumpers, weighted by the share that wakes there: a martingale too.
    That share falls like ``n^-(1 + wake)``, so what a change late in the stream costs more grows like ``log n``.

    Examples
    --------
    >>> jumper = SimpleJumper()
    >>> jumper.bet([0.25, 0.5])                     # (1.25 + 1 + 0.75) / 3 = 1, and p = 1/2 pays all bets the same
    array([0., 0.])
    >>> bool(jumper.bet([0.01] * 30)[-1] > np.log(100))
    True
    """

    def __init__(self, bets: Bets | None = None, *, jump: float = 0.01, asleep: float = 0.0, wake: float = 0.5) -> None:
        if not 0 <= jump <= 1:
            raise UsageError(f"`jump` must lie in [0, 1], got {jump}.")
        if not 0 <= asleep < 1:
            raise UsageError(f"`asleep` must lie in [0, 1), got {asleep}. 0.5 keeps one half for late changes.")
        if not 0 < wake <= 1:
            raise UsageError(f"`wake` must lie in (0, 1], got {wake}.")
        self.bets = Bets() if bets is None else bets
        self.jump, self.asleep, self.wake = float(jump), float(asleep), float(wake)
        self.n_bet = 0
        self.log_capital = 0.0
        # Shares of the capital, which sum to 1 with what sleeps: only the logarithm of the whole can leave float64.
        self._sleeping = self.asleep
        self._shares = [(1 - self.asleep) / len(self.bets)] * len(self.bets)

    def bet(self, p_values: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Bet on p-values, in their order.

        Parameters
        ----------
        p_values : float array of shape (item,)
            In (0, 1].

        Returns
        -------
        float64 array of shape (item,)
            Natural logarithm of the capital after each. The same in one call and in many.

        Raises
        ------
        DataError
            If a p-value lies outside (0, 1]; nothing has been bet then.
        """
        given = np.asarray(p_values, np.float64)
        if given.ndim != 1 or not ((given > 0) & (given <= 1)).all():
            raise DataError("P-values must have shape (item,) and lie in (0, 1].")
        return np.array([self._step(p) for p in given.tolist()], np.float64)

    def _step(self, p: float) -> float:
        """Wake, jump, bet; return the logarithm of the capital."""
        woken = self._sleeping * self.wake / (self.n_bet + 100)
        spread = (self.jump * sum(self._shares) + woken) / len(self._shares)
        stay = 1 - self.jump
        paid = [(stay * it + spread) * odds for it, odds in zip(self._shares, self.bets.odds(p), strict=True)]
        sleeping = self._sleeping - woken
        whole = sum(paid) + sleeping
        if whole <= 0:  # only with a slope of 2 or -2 alone: all was lost, and nothing comes back
            raise DataError(f"The bets lost all on the p-value {p}. Take slopes inside (-2, 2), or let some sleep.")
        self.log_capital += math.log(whole)
        self._shares, self._sleeping = [it / whole for it in paid], sleeping / whole
        self.n_bet += 1
        return self.log_capital

    def to_json(self) -> dict[str, Any]:
        """All that the next bets depend on; JSON keeps every bit of a float.

        Returns
        -------
        dict
            For `from_json`.
        """
        return {
            "slopes": list(self.bets.slopes), "powers": list(self.bets.powers), "jump": self.jump,
            "asleep": self.asleep, "wake": self.wake, "n_bet": self.n_bet, "log_capital": self.log_capital,
            "sleeping": self._sleeping, "shares": list(self._shares),
        }  # fmt: skip

    @classmethod
    def from_json(cls, state: dict[str, Any]) -> SimpleJumper:
        """Go on where `to_json` was called, bit for bit.

        Parameters
        ----------
        state : dict
            What `to_json` gave.

        Returns
        -------
        SimpleJumper

        Raises
        ------
        DataError
            If the shares are no shares.
        KeyError
            If an entry is missing.
        """
        bets = Bets(tuple(state["slopes"]), tuple(state["powers"]))
        jumper = cls(bets, jump=state["jump"], asleep=state["asleep"], wake=state["wake"])
        shares: Sequence[float] = [float(it) for it in state["shares"]]
        sleeping, log_capital = float(state["sleeping"]), float(state["log_capital"])
        whole = sum(shares) + sleeping
        if (
            len(shares) != len(bets)
            or min(*shares, sleeping) < 0
            or not (abs(whole - 1) < 1e-9 and math.isfinite(log_capital))
        ):
            raise DataError("The capital of a drift state is damaged. Restart the monitor.")
        jumper._shares, jumper._sleeping = list(shares), sleeping
        jumper.n_bet, jumper.log_capital = int(state["n_bet"]), log_capital
        return jumper
