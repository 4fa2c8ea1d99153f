"""More than the service can do: it says so, stays within its memory, and is itself again at once; and how it stops."""

import asyncio
import threading

import httpx
import numpy as np
from support.inbox_rows import put_items, put_labels
from support.pressure import PREDICT, Ledger, load, post
from support.served_process import served
from support.service import rows

ROW = {"inputs": [[3.0, 0, 0, 0, 0, 0]]}
MANY = {"inputs": [[3.0, 0, 0, 0, 0, 0]] * 400}
GROWTH = 200 << 20


def test_ten_times_what_it_can_do_is_refused_with_a_time_to_come_again(small, tmp_path):
    """120 clients with 400 rows each are ten times the 4,096 rows that may wait."""
    with served(f"small={small}", "--data", tmp_path) as it:
        asyncio.run(load(it.port, post(PREDICT, MANY), 4, 1))
        it.forget_peak()
        before = it.memory()
        found = asyncio.run(load(it.port, post(PREDICT, MANY), 120, 5))
        assert set(found.statuses) == {200, 503}
        assert found.statuses[200] > 0
        assert (found.without_hint, found.unanswered, found.refused) == (0, [], 0)
        assert it.memory("VmHWM") - before < GROWTH
        assert httpx.post(f"{it.address}{PREDICT}", json=ROW).status_code == 200  # the queue is as short as before
        assert it.stop()[0] == 0


def test_a_stop_under_load_answers_what_was_accepted(own, tmp_path):
    """With streams open, a job running and clients that ask on and on: every request is answered, the status is 0."""
    x, y = rows(400, 8, classes=4)
    numbers = np.array(put_items(tmp_path, own, x))[y == 3]
    put_labels(tmp_path, {int(it): "white" for it in numbers[:20]})
    ledger, ended = Ledger(), []
    with served(f"small={own}", "--data", tmp_path) as it:

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
            while not ledger.statuses[200] > 30:
                await asyncio.sleep(0.05)
            stopped = await asyncio.to_thread(it.stop)
            until.set()
            await asking
            return stopped

        code, seconds = asyncio.run(loaded())
        for thread in watching:
            thread.join(30)
    assert (code, ledger.unanswered) == (0, [])
    assert seconds < 30
    assert set(ledger.statuses) == {200}
    assert sorted(ended) == sorted(streams)
    assert not [line for line in it.lines if "Traceback" in line or "rror" in line], it.lines
