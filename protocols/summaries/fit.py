"""What a fit reached: the record that ``slots fit --json`` prints, the model keeps, and the report shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, Self

from slots.training.defaults import Try

SCHEMA = 1
"""Version of `FitSummary` as JSON."""

NOT_MEASURED = "How often matched answers are right on new data was not measured."
"""Said where a fit has no `Vouched`."""


@dataclass(frozen=True)
class Vouched:
    """How often matched answers were right on examples that trained nothing.

    Parameters
    ----------
    level : float
        Share of matched answers that was asked to be right, in (0, 1).
    n_checked, n_matched, n_right : int
        Examples asked, those then matched, and those rightly.
    shown : bool
        Whether these are enough to show the level.
    smaller_by : float or None
        Degrees by which the precision caps were made smaller for it; None where nothing may be matched.
    open_share : float in [0, 1), default 0.0
        Share of the examples asked that had to stay unmatched: a network behind the features may have seen them.
    left_open : int, default 0
        Examples that stay unmatched for it, and that the level alone would have let match.
    course : tuple of (float, int, int), default ()
        Degrees by which caps are smaller, examples asked that are then matched, and those rightly.
    asked : tuple of (float, float or None, bool), default ()
        Other levels, the degrees that each would have taken (None where nothing could be matched), and whether it would
        have been shown.
    """

    level: float
    n_checked: int
    n_matched: int
    n_right: int
    shown: bool
    smaller_by: float | None
    open_share: float = 0.0
    left_open: int = 0
    course: tuple[tuple[float, int, int], ...] = ()
    asked: tuple[tuple[float, float | None, bool], ...] = ()

    @classmethod
    def of_history(cls, figures: Mapping[str, Any]) -> Vouched | None:
        """What the figures of a fit say; None for models older than this, and where nothing was asked."""
        kept = figures.get("vouching")
        if kept is None:
            return None
        known = {name: kept[name] for name in cls.__dataclass_fields__ if name in kept}  # the last four are newer
        for name in ("course", "asked"):
            known[name] = tuple(map(tuple, known.get(name, ())))
        return cls(**known)

    def __str__(self) -> str:
        return self._worth() + self._open()

    def _open(self) -> str:
        """How many were left unmatched for the open share, where any were."""
        if not self.left_open:
            return ""
        more = f"{self.left_open:,} more {'is' if self.left_open == 1 else 'are'} left unmatched"
        why = "the features may come from a network that saw them"
        return f" For the open share of {100 * self.open_share:g} %, {more}: {why}."

    def _worth(self) -> str:
        """Whether the level was shown, and by what."""
        level, asked = f"{100 * self.level:g} %", f"{self.n_checked:,} examples that trained nothing"
        found = f"{self.n_right:,} of {self.n_matched:,}"
        if self.shown:
            return f"Matched answers are right at {level} or better on examples that trained nothing: {found}."
        if self.n_matched and self.n_right < self.level * self.n_matched:
            share = f"{100 * self.n_right / self.n_matched:.1f} %"
            return f"Matched answers are not right at {level}: on {asked} {found} are, {share}."
        count = f"{self.n_matched:,} are matched, {self.n_right:,} rightly, too few to tell"
        start = f"It could not be shown that matched answers are right at {level}"
        return f"{start}: of {asked} {count if self.n_matched else 'none is matched'}."


@dataclass(frozen=True)
class Looked:
    """What a look at the data tried before the fit, and what the fit used.

    Parameters
    ----------
    n_checked : int
        Held-out examples behind each accuracy.
    chosen : Try
        The setting that was taken.
    tries : tuple of Try
        All that were tried, in order.
    used : dict
        Fields of the fit's `TrainConfig` that a look can decide; slots a class grow with the data.
    """

    n_checked: int
    chosen: Try
    tries: tuple[Try, ...]
    used: dict[str, Any]

    @classmethod
    def of_history(cls, figures: Mapping[str, Any]) -> Self | None:
        """What the figures of a fit say; None where nothing was tried, and for models older than this."""
        kept = figures.get("look")
        if kept is None:
            return None
        tries = tuple(Try(**tried) for tried in kept["tries"])
        return cls(int(kept["n_checked"]), Try(**kept["chosen"]), tries, dict(kept["used"]))

    def sentence(self) -> str:
        """What the fit used, in words."""
        n_slots = int(self.used["slots_per_class"] or 0)
        slots = f"{n_slots} slots a class" if n_slots > 1 else "one slot a class" if n_slots else "grown slots"
        steps = f"{self.used['epochs']} epochs in batches of {self.used['batch_size']}"
        share, lift = self.used["whitening"], float(self.used.get("lift", 0.0))  # the last two are not in older fits
        words = _whitening(share, str(self.used.get("whitening_by")), lift)
        whitening = words if share == 1 else f"whitening: {words}"
        return f"{whitening}, {slots}, scale {self.used['scale']:g}, {steps}"

    def table(self, most: int = 5) -> list[tuple[str, str, str, str]]:
        """The chosen setting and the most accurate of the others, at most ``most`` in all, under a line of heads."""
        others = sorted(set(self.tries) - {self.chosen}, key=lambda tried: (-tried.accuracy, self.tries.index(tried)))
        lines = [_line(self.chosen, chosen=True), *(_line(tried, chosen=False) for tried in others[: most - 1])]
        return [("whitening", "slots a class", "scale", "accuracy"), *lines]


def _line(tried: Try, *, chosen: bool) -> tuple[str, str, str, str]:
    """A setting in words."""
    whitening = _whitening(tried.whitening, tried.whitening_by, tried.lift) + (", chosen" if chosen else "")
    return whitening, str(tried.slots_per_class or "grown"), f"{tried.scale:g}", f"{100 * tried.accuracy:.2f} %"


def _whitening(shrinkage: float | None, by: str, lift: float) -> str:
    if shrinkage is None:
        return "none"
    words = [] if shrinkage == 1 else [f"shrinkage {shrinkage:g}"]
    words += ["columns of one scale"] if by == "correlation" else []
    words += [f"a constant of {lift:g}"] if lift else []
    return ", ".join(words) or "centring only"


@dataclass(frozen=True)
class FitSummary:
    """What a fit reached, in the order it is printed; shares lie in [0, 1], None where there was nothing to measure."""

    schema: int
    command: str
    data: str
    data_digest: str
    backbone: str
    n_slots: int
    slots_per_class: dict[str, int]
    train_accuracy: float | None
    train_matched: float | None
    train_precision: float | None
    test_accuracy: float | None
    test_matched: float | None
    test_ambiguous: float | None
    test_accuracy_matched: float | None
    contradictions: list[int]
    interrupted: bool
    elapsed_s: float
    epochs: int
    seed: int
    device: str
    model: str
    report: str
    versions: dict[str, str]
    source_digest: str = ""
    vouching: Vouched | None = None
    look: Looked | None = None

    @classmethod
    def of_history(cls, figures: Mapping[str, Any]) -> Self | None:
        """What a stored line of a fit says.

        Parameters
        ----------
        figures : mapping
            Of the first line of a model's history.

        Returns
        -------
        FitSummary or None
            None where it says less than a fit writes, or something else: a model may have been put together in Python,
            and its folder may come from a stranger.
        """
        kept: dict[str, Any] = {}
        for it in fields(cls):
            if it.name in figures:
                kept[it.name] = figures[it.name]
            elif it.default is MISSING:
                return None
        try:
            kept |= {"vouching": Vouched.of_history(figures), "look": Looked.of_history(figures)}
            found = cls(**kept)
            sound = all(_fits(getattr(found, it.name), str(it.type)) for it in fields(cls))
            if not sound or (found.vouching and not str(found.vouching)) or (found.look and not found.look.table()):
                return None
        except (KeyError, TypeError, ValueError, AttributeError):
            return None
        return found


_KINDS: dict[str, tuple[type, ...]] = {"str": (str,), "int": (int,), "bool": (bool,), "float": (int, float)}


def _fits(value: object, annotation: str) -> bool:
    """Whether a value from JSON is what an annotation of `FitSummary` says; records in it check themselves."""
    if annotation.endswith(" | None"):
        return value is None or _fits(value, annotation.removesuffix(" | None"))
    if annotation.startswith("list["):
        return isinstance(value, list) and all(_fits(it, annotation[5:-1]) for it in value)
    if annotation.startswith("dict["):
        kind = annotation[5:-1].partition(", ")[2]
        return isinstance(value, dict) and all(_fits(it, kind) for it in value.values())
    flag = isinstance(value, bool) and annotation != "bool"  # which Python counts among the whole numbers
    return isinstance(value, _KINDS.get(annotation, (object,))) and not flag
