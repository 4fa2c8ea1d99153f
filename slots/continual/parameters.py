"""The ranges of a continual learner's parameters."""

from __future__ import annotations

from typing import Any

from slots.errors import UsageError


def check_parameters(learner: Any) -> None:
    """Refuse parameters of a `ContinualSlots` that are out of their range.

    Raises
    ------
    UsageError
        With the name, the range, and what to do.
    """
    for name in ("n_directions", "first_slots", "first_share", "slot_share", "pending"):
        if getattr(learner, name) < 1:
            raise UsageError(f"`{name}` must be >= 1, got {getattr(learner, name)}. Leave it out for the default.")
    if learner.held_out < 0:
        raise UsageError(f"`held_out` must be >= 0, got {learner.held_out}. 0 weighs all evidence alike.")
    if learner.probation < 0:
        raise UsageError(f"`probation` must be >= 0, got {learner.probation}. 0 seals a slot as soon as it can be.")
    if not 0 < learner.lead < 1:
        raise UsageError(f"`lead` must lie in (0, 1), got {learner.lead}. 0.6 is a good start.")
