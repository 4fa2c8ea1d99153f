"""Images are decoded beside the event loop, two at a time: each may take a hundred megabytes while it is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from slots.model.slot_model import SlotModel

Made = TypeVar("Made")


class Decoders:
    """Threads that make inputs of a model from what requests bring.

    What waits for them is bounded by the bodies that may be held at a time.

    Parameters
    ----------
    threads : int, default 2
        How many images are decoded at a time (count).
    """

    def __init__(self, threads: int = 2) -> None:
        self._pool = ThreadPoolExecutor(threads, "decode")

    async def run(self, model: SlotModel, work: Callable[[], Made]) -> Made:
        """Do what makes inputs: of images in a thread, of anything else at once.

        Parameters
        ----------
        model : SlotModel
            Whose inputs they are.
        work : callable
            What makes them.

        Returns
        -------
        object
            What it returned.
        """
        if model.preprocessing.kind != "images":
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()
