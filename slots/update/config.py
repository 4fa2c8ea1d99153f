"""How an update makes new slots: every number in one frozen dataclass."""

from __future__ import annotations

from dataclasses import dataclass

from slots.deprecation import renamed
from slots.errors import UsageError
from slots.update.self_training import SelfTrainingConfig


@renamed(moves="kmeans_iterations")
@dataclass(frozen=True)
class UpdateConfig:
    """How an update makes and refines new slots.

    Parameters
    ----------
    kmeans_iterations : int, default 3
        Times that each new slot moves to the mean of the examples nearest to it.
    epochs : int, default 15
        Passes over the new data in which the new slots are refined beside the old ones; 0 leaves them as they lie.
    slot_lr : float, default 2e-3
        Peak learning rate of the refinement.
    rehearsal : int, default 3000
        Matched new examples that take part in it with the answers they got, and as many remembered ones (count, >= 0).
    precision : float in (0, 1], default 0.99
        Share of a new precision cap that must have its label, by labels taken from the nearest slot. Of labels that
        were given, and of remembered examples, no cap holds a foreign one.
    disjoint : bool, default False
        Cut new support caps so far that they meet no old slot of another label as balls on the sphere. Without it a
        new slot answers for its cap less what older slots match, which gives the same guarantee and is far larger.
    seed : int, default 0
        Where the order of batches, the drawn views and the starts of k-means come from.
    spread : SelfTrainingConfig, optional
        Spread the given labels over all unmatched examples (`slots.update.self_training`) and make slots of what they
        reach, of old labels too. Far more accurate from few labels; it needs the model's novelty calibration. Default:
        each label (or query) seeds one slot.
    slots_per_label : int, default 30
        With ``spread``: the most new slots of one label (count, >= 1).
    judge : bool, default True
        Judge the planned slots on remembered examples and on given labels that did not make them, and leave out what
        would do harm (`slots.update.plan_update`); False adds them as planned.
    recall : bool, default False
        Instead of all that: what is told joins the rehearsal memory, and where nothing matches all that is remembered
        guesses (`slots.update.recalled_update`). For a model that is told a few labels again and again, of
        classes and domains that come later; it needs a rehearsal memory, as every fit leaves one.
    """

    kmeans_iterations: int = 3
    epochs: int = 15
    slot_lr: float = 2e-3
    rehearsal: int = 3000
    precision: float = 0.99
    disjoint: bool = False
    seed: int = 0
    spread: SelfTrainingConfig | None = None
    slots_per_label: int = 30
    judge: bool = True
    recall: bool = False

    def __post_init__(self) -> None:
        for name in ("kmeans_iterations", "epochs", "rehearsal"):
            if getattr(self, name) < 0:
                raise UsageError(f"`{name}` must be >= 0, got {getattr(self, name)}. Pass 0 to leave it out.")
        if self.slots_per_label < 1:
            raise UsageError(
                f"`slots_per_label` must be >= 1, got {self.slots_per_label}. It is the most that a label gets."
            )
        if not 0 < self.precision <= 1 or self.slot_lr <= 0:
            raise UsageError(
                f"`precision` must lie in (0, 1] and `slot_lr` be > 0, got {self.precision} and {self.slot_lr}. "
                "Try 0.99 and 0.002."
            )
