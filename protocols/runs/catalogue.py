"""Every protocol by its name; importing this imports no protocol."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Final

from protocols.harness.protocol import Protocol
from slots.errors import UsageError

PROTOCOLS: Final[Mapping[str, str]] = {
    "slot-update": "protocols.runs.slot_update.protocol",
    "continual": "protocols.runs.continual.protocol",
    "unsupervised": "protocols.runs.unsupervised.protocol",
    "ood": "protocols.runs.ood.protocol",
    "label-errors": "protocols.runs.label_errors.protocol",
    "adversarial": "protocols.runs.adversarial.protocol",
    "robustness": "protocols.runs.adversarial.robustness",
    "lifetime": "protocols.runs.lifetime.protocol",
    "transfer": "protocols.runs.transfer.protocol",
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
