"""Every protocol by its name; importing this imports no protocol."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Final

from protocols.runs.protocol import Protocol
from slots.errors import UsageError

PROTOCOLS: Final[Mapping[str, str]] = {
    "slot-update": "protocols.runs.slot_update",
    "continual": "protocols.runs.continual",
    "unsupervised": "protocols.runs.unsupervised",
    "ood": "protocols.runs.ood",
    "label-errors": "protocols.runs.label_errors",
    "adversarial": "protocols.runs.adversarial",
}
"""Name to module; each defines ``PROTOCOL``."""


def find_protocol(name: str) -> Protocol:
    """The protocol of a name.

    Raises
    ------
    UsageError
        If there is none.
    """
    if name not in PROTOCOLS:
        raise UsageError(f"`protocol` must be one of {', '.join(PROTOCOLS)}, got {name!r}. Choose one of them.")
    found: Protocol = import_module(PROTOCOLS[name]).PROTOCOL
    return found
