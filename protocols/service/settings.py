"""What a service is told when it starts."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from slots.errors import UsageError

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
"""Addresses that only this machine reaches."""


@dataclass(frozen=True)
class Limits:
    """How much one client may ask for at once.

    Parameters
    ----------
    body : int
        Bytes of a request body after decompression.
    pixels : int
        Pixels of an image (count).
    images, rows : int
        Inputs of one request: images, or rows of features and texts (count).
    depth : int
        Nesting of JSON (levels).
    queued_rows : int
        Rows that may wait for a model before further ones are refused with 503 (count).
    batch_rows : int
        Rows that are answered together at most (count).
    connections : int
        Open connections (count).
    request_seconds : float
        From a connection, or its last answer, until a whole request has come; then it is closed (seconds).
    """

    body: int = 8 << 20
    pixels: int = 25_000_000
    images: int = 64
    rows: int = 4096
    depth: int = 32
    queued_rows: int = 4096
    batch_rows: int = 64
    connections: int = 1200
    request_seconds: float = 10.0


@dataclass(frozen=True)
class Settings:
    """What a service is told when it starts.

    Parameters
    ----------
    models : dict of str to Path
        Model folders by the name that clients use.
    data : Path
        Folder of the service's own data.
    host : str
        Address to listen on.
    port : int
        Port to listen on (0 to 65535); 0 takes any that is free.
    database : str
        URL of the database; empty for SQLite in ``data``.
    device : str
        Where the models lie, as `protocols.recipes.building.pick_device` takes it.
    false_alarm_rate : float
        Share of familiar inputs that may be called novel, in (0, 1).
    poll_seconds : float
        How often a model folder is looked at for a new generation (seconds).
    drain_seconds : float
        How long the service says that it is not ready before it stops accepting requests (seconds).
    limits : Limits
        How much one client may ask for.

    Raises
    ------
    UsageError
        If there is no model, or a number is out of its range.
    """

    models: dict[str, Path]
    data: Path
    host: str = "127.0.0.1"
    port: int = 8080
    database: str = ""
    device: str = "auto"
    false_alarm_rate: float = 0.05
    poll_seconds: float = 1.0
    drain_seconds: float = 0.0
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if not self.models:
            raise UsageError("`models` must name at least one model folder, got none. `slots fit` writes one.")
        if not 0 <= self.port <= 65535:
            raise UsageError(f"`port` must lie in 0 to 65535, got {self.port}. 8080 is the default.")
        if not 0 < self.false_alarm_rate < 1:
            raise UsageError(
                f"`false_alarm_rate` must lie in (0, 1), got {self.false_alarm_rate}. 0.05 is the default."
            )

    @property
    def public(self) -> bool:
        """Whether other machines can reach the service."""
        return self.host not in LOOPBACK
