"""What a service is told when it starts."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
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
    archive : int
        Bytes of a model's archive that is imported, as it comes and after decompression.
    first_body : int
        Bytes of a body of somebody who has shown no key, such as the form at the login.
    bodies : int
        Bytes of all bodies that are held at a time; beyond it requests are refused with 503.
    pixels : int
        Pixels of an image (count).
    all_pixels : int
        Pixels of all images of a request (count); 0 for no bound.
    images, rows : int
        Inputs of one request: images, or rows of features and texts (count).
    depth : int
        Nesting of JSON (levels).
    values : int
        Values of a JSON document, lists and objects counting as four (count).
    queued_rows : int
        Rows that may wait for a model before further ones are refused with 503 (count).
    batch_rows : int
        Rows that are answered together at most (count).
    connections : int
        Open connections (count).
    streams, streams_per_key : int
        Streams of events (server-sent events) that are open at a time: of all, and of one key (count).
    request_seconds : float
        From a connection, or its last answer, until a whole request has come; then it is closed (seconds).
    requests_per_second : float
        Requests of one key; it may send twice as many at once (count a second). 0 for no bound.
    """

    body: int = 8 << 20
    archive: int = 1 << 30
    first_body: int = 16 << 10
    bodies: int = 64 << 20
    pixels: int = 25_000_000
    all_pixels: int = 100_000_000
    images: int = 64
    rows: int = 4096
    depth: int = 32
    values: int = 1_000_000
    queued_rows: int = 4096
    batch_rows: int = 64
    connections: int = 1200
    streams: int = 256
    streams_per_key: int = 16
    request_seconds: float = 10.0
    requests_per_second: float = 1000.0


@dataclass(frozen=True)
class Policy:
    """Which items are kept, by the answer they got; an item is kept or not by its content, so a repeat fares alike.

    Parameters
    ----------
    unmatched, ambiguous, matched : float in [0, 1]
        Share of them that is kept.

    Raises
    ------
    UsageError
        If a share is out of its range.
    """

    unmatched: float = 1.0
    ambiguous: float = 1.0
    matched: float = 0.01

    def __post_init__(self) -> None:
        for kind in ("unmatched", "ambiguous", "matched"):
            if not 0 <= getattr(self, kind) <= 1:
                raise UsageError(f"The share of {kind} items to keep must lie in [0, 1], got {getattr(self, kind)}.")

    @classmethod
    def parse(cls, words: str, default: Policy) -> Policy:
        """Read a policy such as ``unmatched:all,matched:1%``; ``all`` and ``none`` alone hold for every item.

        Parameters
        ----------
        words : str
            Of each kind that is named: ``all``, ``none``, a percentage or a share.
        default : Policy
            For kinds that are not named.

        Raises
        ------
        UsageError
            If it is none.

        Examples
        --------
        >>> Policy.parse("matched:5%", Policy())
        Policy(unmatched=1.0, ambiguous=1.0, matched=0.05)
        """
        if ":" not in words:
            share = _share(words)
            return cls(share, share, share)
        found = {}
        for part in words.split(","):
            kind, _, share_word = (it.strip() for it in part.partition(":"))
            if kind not in ("unmatched", "ambiguous", "matched"):
                raise UsageError(f"A store policy names unmatched, ambiguous and matched items, got {kind!r:.40}.")
            found[kind] = _share(share_word)
        return replace(default, **found)

    def keeps(self, answer: str, digest: str) -> bool:
        """Whether an item is kept, by its answer and the SHA-256 of its content."""
        share: float = getattr(self, answer)
        return share >= 1 or int(digest[:13], 16) < share * 16**13  # 52 bits: a float64 holds them


def _share(word: str) -> float:
    word = word.strip()
    if word in ("all", "none"):
        return 1.0 if word == "all" else 0.0
    try:
        return float(word.removesuffix("%")) / (100 if word.endswith("%") else 1)
    except ValueError as error:
        raise UsageError(f"A share to keep must be all, none, a percentage or a number, got {word!r:.40}.") from error


@dataclass(frozen=True)
class Keeping:
    """What is kept of what comes in, and how much.

    Parameters
    ----------
    policy : Policy
        Which items; a request may say otherwise.
    items : int
        Items of all models (count); more are refused with 507.
    size : int
        Bytes of their contents; more are refused with 507.
    free : int
        Bytes that must stay free on the disk; below it nothing is kept, and 507 is the answer.
    inline : int
        Contents of fewer bytes lie in the database, larger ones in files beside it.
    sample_days : float
        After so many days matched items go that nobody labelled or asked about.

    Raises
    ------
    UsageError
        If a bound is negative.
    """

    policy: Policy = field(default_factory=Policy)
    items: int = 5_000_000
    size: int = 50 << 30
    free: int = 256 << 20
    inline: int = 100_000
    sample_days: float = 30.0

    def __post_init__(self) -> None:
        for name in ("items", "size", "free", "inline", "sample_days"):
            if getattr(self, name) < 0:
                raise UsageError(f"`{name}` must be >= 0, got {getattr(self, name)}. Leave it out for the default.")


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
    keeping : Keeping
        What is kept of what comes in.
    admin_key : str
        An administrator's key that is made at the start if it never was; empty for none.
    publish : str
        Folder or address (fsspec) where each generation is published for services that follow; empty for none.
    follow : dict of str to str
        Models that another service publishes, by the name that clients use: their folders or addresses.
    follow_seconds : float
        How often those are looked at for a new generation (seconds).

    Raises
    ------
    UsageError
        If there is no model, a name stands for two, or a number is out of its range.
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
    keeping: Keeping = field(default_factory=Keeping)
    admin_key: str = field(default="", repr=False)  # not shown wherever settings are
    publish: str = ""
    follow: dict[str, str] = field(default_factory=dict)
    follow_seconds: float = 5.0

    def __post_init__(self) -> None:
        if not self.models and not self.follow:
            raise UsageError("`models` must name at least one model folder, got none. `slots fit` writes one.")
        if both := sorted(self.models.keys() & self.follow.keys()):
            raise UsageError(f"Model names must differ, got {both[0]!r} for a folder and a place to follow. Use NAME=.")
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
