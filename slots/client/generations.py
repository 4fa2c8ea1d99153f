"""Calls that lead through a model's generations, and carry one from service to service."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from slots.client.asking import Asking
from slots.client.documents import Job
from slots.progress import Progress, silent


class Generations(Asking):
    """Generations, undo and archives."""

    def generations(self) -> list[dict[str, Any]]:
        """All generations, the oldest first: what made each, its slots, whether it is kept and current."""
        return list(self._ask("GET", "/generations"))

    def undo(self, to: int | None = None) -> dict[str, Any]:
        """Go back to an older generation, under a new number.

        Parameters
        ----------
        to : int, optional
            Its number. Default: the one before the current content.

        Returns
        -------
        dict
            The new generation, as `generations` lists it.
        """
        body = {"to": to, "if_needed": to is not None}
        return dict(self._ask("POST", "/undo", body=body, repeatable=to is not None))

    def save_archive(self, path: str | Path) -> Path:
        """Save the current generation as one file; unpacked it is a model folder.

        Parameters
        ----------
        path : path
            Of the file, which must not be there.

        Returns
        -------
        Path

        Raises
        ------
        StorageError
            If it is there, or cannot be written.
        ServiceError
            If what came is not what the service sent; nothing is kept then.
        """
        return self._transport.fetch(self._path("/archive"), Path(path))

    def import_archive(
        self,
        path: str | Path,
        *,
        dry_run: bool = False,
        generation: int | None = None,
        wait: float = 600.0,
        progress: Progress = silent,
    ) -> Job:
        """Make a model that `save_archive` saved the next generation of this one; `undo` leads back.

        Parameters
        ----------
        path : path
            Of the file.
        dry_run : bool, default False
            Only find out what would change.
        generation : int, optional
            The one that must be there, such as ``before`` of the dry run. Default: whichever is there.
        wait : float, default 600
            For the job (seconds).
        progress : callable, optional
            ``progress(step, share)``, told what the job does.

        Returns
        -------
        Job
            That is done; ``result["changed"]`` counts remembered examples that are answered otherwise,
            ``result["proven"]`` says whether no matched answer can be.

        Raises
        ------
        SlotsError
            If the file is no archive of a model that takes the same inputs, or the job failed.
        ServiceError
            If it was cancelled, interrupted, or is not done within ``wait``; it goes on then.
        """
        query = {"dry_run": str(dry_run).lower(), "generation": generation}
        return self._followed(self._transport.send(self._path("/archive"), Path(path), query=query), wait, progress)
