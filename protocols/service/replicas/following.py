"""The ones who read: a copy of what another service published, taken over whole, which then answers."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from protocols.service.replicas.places import Place
from slots.errors import ModelError, SlotsError
from slots.storage.mirroring import adopt_state
from slots.storage.states import read_pointer


@dataclass
class Follower:
    """A model folder on this machine that follows a published one.

    Parameters
    ----------
    folder : Path
        The copy; nothing else writes to it.
    place : Place
        Where the other service publishes the model.
    """

    folder: Path
    place: Place
    problem: str = ""
    """Why the place could not be followed when it was last looked at; the copy goes on answering."""

    def begin(self) -> None:
        """Take over what is published; where it cannot be reached, an earlier copy will do.

        Raises
        ------
        StorageError
            If it cannot be reached and there is no earlier copy.
        ModelError
            If what is there is damaged, and there is no earlier copy.
        """
        try:
            adopt_state(self.folder, self.place.read)
        except SlotsError as error:
            try:
                read_pointer(self.folder)
            except ModelError:
                raise error from None
            self.problem = str(error)

    async def run(self, seconds: float) -> None:
        """Look for a new state again and again, until cancelled.

        Parameters
        ----------
        seconds : float
            Between two looks (seconds).
        """
        while True:
            await asyncio.sleep(seconds)
            try:
                await asyncio.to_thread(adopt_state, self.folder, self.place.read)
                self.problem = ""
            except SlotsError as error:
                self.problem = str(error)
