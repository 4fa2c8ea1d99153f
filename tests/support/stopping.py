"""A service that is asked to stop while everything is going on: clients, streams, a job."""

import asyncio
import threading
from dataclasses import dataclass

import httpx
import numpy as np
from support.inbox_rows import put_items, put_labels
from support.pressure import PREDICT, Ledger, load, post
from support.served_process import served
from support.service import rows

ROW = {"inputs": [[3.0, 0, 0, 0, 0, 0]]}


@dataclass
class Stopped:
    """What became of a service that was asked to stop."""

    code: int
    """Its exit status."""
    seconds: float
    """From SIGTERM to its end."""
    ledger: Ledger
    """What 30 clients were answered."""
    streams: list
    """What was followed: the log of events twice, a job."""
    ended: list
    """Which of these streams came to an end."""
    lines: list
    """What the service printed."""


def stopped_under_load(model, data, ready):
    """Stop a service on ``model`` when ``ready(ledger)`` holds, an asynchronous wait."""
    x, y = rows(400, 8, classes=4)
    numbers = np.array(put_items(data, model, x))[y == 3]
    put_labels(data, {int(it): "white" for it in numbers[:20]})
    ledger, ended = Ledger(), []
    with served(f"small={model}", "--data", data, program=None) as it:

        def follow(path):
            with httpx.stream("GET", it.address + path, timeout=60) as stream:
                for _ in stream.iter_raw():
                    pass
            ended.append(path)

        job = httpx.post(f"{it.address}/api/v1/models/small/updates", json={"spread": True}, timeout=60)
        streams = ["/api/v1/events/stream", "/api/v1/events/stream", f"{job.headers['Location']}/events"]
        watching = [threading.Thread(target=follow, args=(path,)) for path in streams]
        for thread in watching:
            thread.start()

        async def loaded():
            until = asyncio.Event()
            asking = asyncio.create_task(load(it.port, post(PREDICT, ROW), 30, 60, ledger, until))
            await ready(ledger)
            stopped = await asyncio.to_thread(it.stop)
            until.set()
            await asking
            return stopped

        code, seconds = asyncio.run(loaded())
        for thread in watching:
            thread.join(30)
    return Stopped(code, seconds, ledger, streams, ended, it.lines)
