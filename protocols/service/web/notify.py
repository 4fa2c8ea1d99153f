"""Tell systemd that the service takes requests, or is stopping (`sd_notify`, without its library)."""

from __future__ import annotations

import contextlib
import os
import socket


def notify(state: str) -> None:
    """Send a state to the service manager that started this process; nothing happens where there is none.

    Parameters
    ----------
    state : str
        Such as ``READY=1`` or ``STOPPING=1``; see ``man sd_notify``.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address or not hasattr(socket, "AF_UNIX"):
        return
    if address.startswith("@"):  # a name outside the file system
        address = "\0" + address[1:]
    # A manager that does not listen is not a reason to stop serving.
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.sendto(state.encode(), address)
