"""``slots serve --demo``: a model that knows the digits 0 to 7, and a stream in which 8s and 9s come as well."""

from __future__ import annotations

import io
import itertools
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
from PIL import Image

import backbones
from protocols.data import load_data
from protocols.service.running import run
from protocols.service.settings import Settings
from slots.closing import ClosingConfig
from slots.training import TrainConfig, fit

NAME = "digits"
"""What the model is called."""

KNOWN = 8
"""Classes that it knows, from 0 on (count)."""

_SHIFTS = ((0, 0), (1, 0), (0, 1), (-1, 0), (0, -1))  # pixels, down and to the right: one round of the stream each


@dataclass(frozen=True)
class Digit:
    """One image of the stream.

    Parameters
    ----------
    id : str
        Never given twice.
    file : bytes
        A PNG file.
    label : int
        What it shows; the service is not told.
    """

    id: str
    file: bytes
    label: int


def fit_demo(folder: Path) -> None:
    """Fit a model on the digits 0 to 7 and save it: seconds.

    Parameters
    ----------
    folder : Path
        Of the model; it must not exist yet.
    """
    data = load_data("digits")
    known = data.y_train < KNOWN
    # Tight caps, as in the README: what is new shall not fall into them.
    config = TrainConfig(epochs=10, batch_size=100, slots_per_class=8, held_out=0.2, closing=ClosingConfig(reach=0.8))
    names = tuple(str(it) for it in range(KNOWN))
    pixels = backbones.build("pixels", input_shape=(1, 8, 8))
    model, _ = fit(data.x_train[known], data.y_train[known], backbone=pixels, config=config, class_names=names)
    model.save(folder)


def stream(seed: int = 0) -> Iterator[Digit]:
    """Digits that the model was not fitted on, familiar ones and 8s and 9s, in random order and without end.

    Parameters
    ----------
    seed : int, default 0
        Of the order.

    Yields
    ------
    Digit
        After all 643 images the same ones come shifted by a pixel, and from the sixth round on with noise.
    """
    data = load_data("digits")
    new = data.y_train >= KNOWN
    x, y = np.concatenate([data.x_test, data.x_train[new]]), np.concatenate([data.y_test, data.y_train[new]])
    rng = np.random.default_rng(seed)
    for turn in itertools.count():
        for row in rng.permutation(len(x)):
            image = np.roll(x[row, :, :, 0], _SHIFTS[turn % len(_SHIFTS)], (0, 1))
            if turn >= len(_SHIFTS):
                image = np.clip(image + rng.normal(0, 8, image.shape), 0, 255).astype(np.uint8)
            yield Digit(f"digit {row}" + (f", turn {turn + 1}" if turn else ""), _png(image), int(y[row]))


def run_demo(settings: Settings, *, keep: Path | None, said: Callable[..., None]) -> None:
    """Fit a model, serve it and send it digits until interrupted.

    Parameters
    ----------
    settings : Settings
        What else the service is told; its models and data folder are replaced.
    keep : Path or None
        A folder for the model and the service's data, where they stay. None: a temporary one.
    said : callable
        Takes lines for whoever started it.
    """
    feeders: list[Feeder] = []
    with tempfile.TemporaryDirectory(prefix="slots-demo-") as temporary:
        folder = (keep or Path(temporary)) / NAME
        if not folder.exists():
            said("Fitting a model on the digits 0 to 7.")
            fit_demo(folder)

        def started(address: str) -> None:
            said(f"Open {address}", "8s and 9s, which it has never seen, come in among others. Stop it with Ctrl-C.")
            feeders.append(Feeder(address))
            feeders[0].start()

        try:
            run(replace(settings, models={NAME: folder}, data=folder / "service"), started=started)
        finally:
            for feeder in feeders:
                feeder.stop()


class Feeder:
    """Sends digits to a service, a few each second, from a thread of its own until it is stopped.

    Parameters
    ----------
    address : str
        Of the service.
    digits : iterable of Digit, optional
        What to send. Default: `stream`.
    per_second : float, default 5.0
        How many.
    """

    def __init__(self, address: str, digits: Iterable[Digit] | None = None, *, per_second: float = 5.0) -> None:
        self._address, self._pause = address, 1 / per_second
        self._digits = stream() if digits is None else digits
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._feed, name="demo", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    @property
    def sending(self) -> bool:
        """Whether it has not ended."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """End; nothing is sent from then on."""
        self._stopping.set()
        self._thread.join(timeout=10)

    def _feed(self) -> None:
        with httpx.Client(base_url=self._address, timeout=10) as client:
            for digit in self._digits:
                send(client, digit)
                if self._stopping.wait(self._pause):
                    return


def send(client: httpx.Client, digit: Digit) -> dict[str, Any] | None:
    """Send one digit; gives its receipt, or None where the service takes none, being busy, full, stopping or closed.

    Parameters
    ----------
    client : httpx.Client
        Of the service.
    digit : Digit
        What to send.

    Returns
    -------
    dict or None
    """
    try:
        answer = client.post(f"/api/v1/models/{NAME}/items/image", params={"id": digit.id}, content=digit.file)
    except httpx.TransportError:
        return None
    if not answer.is_success:
        return None
    (receipt,) = answer.json()["items"]
    return dict(receipt)


def _png(image: npt.NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()
