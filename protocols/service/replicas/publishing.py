"""The one who writes: each generation that answers is published, files first, the pointer last."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from protocols.service.answering.loaded import Loaded
from protocols.service.answering.served_model import ServedModel
from protocols.service.replicas.places import Place
from slots.errors import ModelError, SlotsError, StorageError
from slots.storage.mirroring import current_files
from slots.storage.states import MOST_JSON, POINTER, STATE, parse_pointer, read_pointer

_AGAIN_SECONDS = (1.0, 60.0)  # after a failure: first, and at most


def publish(served: ServedModel, place: Place) -> str:
    """Put the current state of a model where others can read it.

    States are named by what is in them, so files that are there are not sent again, and a reader finds the state before
    or this one, whole. The state before this one stays, for those who are reading it; older ones go.

    Parameters
    ----------
    served : ServedModel
        Of which the state is read from its folder.
    place : Place
        A folder that nobody else writes to.

    Returns
    -------
    str
        Name of the state.

    Raises
    ------
    ModelError
        If the model folder is damaged.
    StorageError
        If the place refuses, or holds a model folder with its history.
    """
    before = _published(place)
    if before == read_pointer(served.folder).current:
        return before
    found = current_files(served.folder)
    for name, content in found.files.items():
        if name == POINTER or not place.has(name, len(content)):
            place.write(name, content)
    for name in place.folders("states"):
        if STATE.fullmatch(name) and name not in (before, found.state):
            place.remove(f"states/{name}")
    return found.state


def _published(place: Place) -> str | None:
    """The state that the place points to; None where there is none.

    Raises
    ------
    StorageError
        If a model folder that somebody writes to lies there: to publish into it would end its history.
    """
    if not place.exists(POINTER):
        return None
    with suppress(ModelError):  # damaged, by a crash of the place perhaps: it is written anew
        pointer = parse_pointer(place.read(POINTER, MOST_JSON), Path(POINTER))
        if len(pointer.generations) > 1 or place.exists(".lock"):
            raise StorageError(
                f"`{place.url}` must be a place for published models alone, got a model folder with its history. "
                "Publish to another folder."
            )
        return pointer.current
    return None


@dataclass
class Publisher:
    """Publishes the models of a service whenever a new generation answers, until it succeeds.

    Parameters
    ----------
    models : dict of str to ServedModel
        By name, which is their folder's name in the place.
    place : Place
        Where they go.
    """

    models: dict[str, ServedModel]
    place: Place
    published: dict[str, str] = field(default_factory=dict)
    """State of each model that others can read."""
    problems: dict[str, str] = field(default_factory=dict)
    """Why the newest state of a model is not published yet."""

    def __post_init__(self) -> None:
        self._wake = asyncio.Event()

    def swapped(self, _served: ServedModel, _before: Loaded, _after: Loaded) -> None:
        """Told by the service that a new generation answers."""
        self._wake.set()

    async def run(self) -> None:
        """Publish all, then whatever changes, until cancelled."""
        pause = _AGAIN_SECONDS[0]
        while True:
            self._wake.clear()
            for name, served in self.models.items():
                try:
                    state = await asyncio.to_thread(publish, served, self.place.inside(name))
                except SlotsError as error:
                    self.problems[name] = str(error)
                else:
                    self.published[name] = state
                    self.problems.pop(name, None)
            if self.problems:
                await asyncio.sleep(pause)
                pause = min(2 * pause, _AGAIN_SECONDS[1])
            else:
                pause = _AGAIN_SECONDS[0]
                await self._wake.wait()
