"""A method that fails on a set does not end the suite: it is named, and ranked last there."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from protocols.harness.outcome import Row


def attempt(
    figures: Callable[[], Mapping[str, float | None]], method: str, *, ours: bool, group: str, task: str, note: str = ""
) -> Row:
    """A row of what a method measures, or of why it failed.

    Parameters
    ----------
    figures : callable
        Runs the method.
    method, ours, group, task, note
        Of the row (`protocols.harness.outcome.Row`).

    Returns
    -------
    Row
        Without figures, and with the error as its note, where the method raised one.

    Raises
    ------
    ImportError
        If a library is missing: that is no failure.
    """
    try:
        return Row(method, figures(), ours, group, note, task)
    except ImportError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a method of others raises on a strange set
        return Row(method, {}, ours, group, f"Failed on {task}: {error}", task)
