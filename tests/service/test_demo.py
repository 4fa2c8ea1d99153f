"""``slots serve --demo``: digits that the model has never seen fill its queue."""

import itertools
import os
import re
import signal
import time

import httpx
import numpy as np
import pytest
from support.nursery import begin, run
from support.service import running

from protocols.recipes.building import load_model
from protocols.service.demo import KNOWN, NAME, Feeder, fit_demo, send, stream

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / NAME
    fit_demo(folder)
    return folder


def test_the_stream_brings_familiar_and_new_digits_and_none_twice():
    digits = list(itertools.islice(stream(), 5 * 643 + 50))
    assert len({it.id for it in digits}) == len({it.file for it in digits}) == len(digits)
    new = np.array([it.label >= KNOWN for it in digits])
    assert 0.4 < new[:100].mean() < 0.7
    assert [it.id for it in itertools.islice(stream(), 20)] == [it.id for it in digits[:20]]
    assert all(it.file.startswith(b"\x89PNG") for it in digits)


def test_new_digits_wait_in_the_queue(folder, tmp_path):
    assert load_model(folder, device="cpu").head.labels.unique().tolist() == list(range(KNOWN))
    with running(folder, tmp_path / "data", models={NAME: folder}) as client:
        digits = list(itertools.islice(stream(), 120))
        told = {it.id: send(client, it)["answer"]["answer"] for it in digits}
        waiting = client.get(f"/api/v1/models/{NAME}/items", params={"answer": "unmatched", "limit": 200}).json()
        new = [told[it.id] == "unmatched" for it in digits if it.label >= KNOWN]
        familiar = [told[it.id] == "matched" for it in digits if it.label < KNOWN]
        assert np.mean(new) > 0.75
        assert np.mean(familiar) > 0.6
        assert {it["id"] for it in waiting["items"]} == {name for name, answer in told.items() if answer == "unmatched"}
        feeder = Feeder(str(client.base_url), itertools.islice(stream(), 120, 140), per_second=200)
        feeder.start()
        while feeder.sending:
            time.sleep(0.01)
        later = client.get(f"/api/v1/models/{NAME}/items", params={"answer": "unmatched", "limit": 200}).json()["items"]
        sent = {it.id for it in itertools.islice(stream(), 120, 140)}
        assert 0 < len(later) - len(waiting["items"]) <= len(sent)
        assert {it["id"] for it in later} - set(told) <= sent
        endless = Feeder(str(client.base_url))
        endless.start()
        endless.stop()
        assert not endless.sending
        address = str(client.base_url)
    with httpx.Client(base_url=address) as gone:
        assert send(gone, digits[0]) is None


def test_the_command_fits_serves_and_leaves_nothing_behind(tmp_path):
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    service = begin(["serve", "--demo", "--port", "0"], env=environment, piped=True)
    try:
        lines = [service.stdout.readline() for _ in range(2)]
        assert lines[0] == "Fitting a model on the digits 0 to 7.\n"
        assert re.fullmatch(r"Open http://127\.0\.0\.1:\d+\n", lines[1])
        assert list(tmp_path.glob("slots-demo-*"))
        service.send_signal(signal.SIGINT)
        assert service.wait(60) == 0
    finally:
        service.kill()
        service.wait()
        service.stdout.close()
    assert not list(tmp_path.glob("slots-demo-*"))


def test_models_or_the_demo(tmp_path):
    for arguments in ([], ["--demo", "somewhere"]):
        found = run(["serve", *arguments], cwd=tmp_path)
        assert found.returncode == 2
        assert "Say either which model folders to serve or to follow, or --demo." in found.stderr
