"""Where a request of a browser comes from: a page of another site must not command a service through its visitor."""

from __future__ import annotations

from protocols.service.gate.credentials import Headers, one
from protocols.service.settings import LOOPBACK

SAFE = frozenset({"GET", "HEAD"})
"""Methods that change nothing."""


def names_this_machine(headers: Headers) -> bool:
    """Whether the Host is a name of this machine: a stranger's name may have been made to lead here (DNS rebinding).

    Parameters
    ----------
    headers : iterable of pairs of bytes
        Names in lower case.

    Returns
    -------
    bool

    Examples
    --------
    >>> [names_this_machine([(b"host", it)]) for it in (b"localhost:8080", b"[::1]:80", b"127.0.0.1", b"evil.org")]
    [True, True, True, False]
    """
    host = (one(headers, b"host") or b"").decode("latin-1").lower()
    if host.startswith("["):
        name, bracket, port = host[1:].partition("]")
        return bracket == "]" and name in LOOPBACK and (not port or port[0] == ":")
    return host.partition(":")[0] in LOOPBACK


def from_our_pages(headers: Headers, method: str, *, certain: bool) -> bool:
    """Whether a request does not come from a page of another site.

    Parameters
    ----------
    headers : iterable of pairs of bytes
        Names in lower case.
    method : str
        Of the request.
    certain : bool
        Whether a request that says nothing of its origin, as those of programs do, is refused as well.

    Returns
    -------
    bool
        Links from elsewhere to a page (a GET that navigates) are let in.
    """
    site = one(headers, b"sec-fetch-site")
    if site is not None:
        if site in (b"same-origin", b"none"):
            return True
        return method in SAFE and one(headers, b"sec-fetch-mode") == b"navigate"
    if method in SAFE:
        return True
    origin = one(headers, b"origin")
    if origin is None:
        return not certain
    host = one(headers, b"host")
    return bool(host) and origin.lower() in (b"http://" + host.lower(), b"https://" + host.lower())  # type: ignore[union-attr]
