"""What a request brings to be let in: a key in one of three headers, or the cookie of a session."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable

Headers = Iterable[tuple[bytes, bytes]]


def sent_key(headers: Headers) -> bytes | None:
    """The key that a request carries: as Bearer, as password of Basic, or as ``X-API-Key``, looked for in that order.

    Parameters
    ----------
    headers : iterable of pairs of bytes
        Names in lower case.

    Returns
    -------
    bytes or None
        Empty where there is a header that holds none; None where there is no such header.

    Examples
    --------
    >>> sent_key([(b"authorization", b"Bearer abc")]), sent_key([(b"x-api-key", b"abc")])
    (b'abc', b'abc')
    >>> sent_key([(b"authorization", b"Basic " + base64.b64encode(b"anna:abc"))]), sent_key([])
    (b'abc', None)
    """
    given = one(headers, b"authorization")
    if given is None:
        return one(headers, b"x-api-key")
    scheme, _, rest = given.partition(b" ")
    if scheme.lower() == b"bearer":
        return rest.strip()
    if scheme.lower() != b"basic":
        return b""
    try:
        return base64.b64decode(rest.strip(), validate=True).partition(b":")[2]
    except (binascii.Error, ValueError):
        return b""


def cookie(headers: Headers, name: str) -> str | None:
    """The value of a cookie; None if it was not sent, or twice."""
    wanted = name.encode()
    found = [
        value.strip()
        for header, line in headers
        if header == b"cookie"
        for key, _, value in (part.partition(b"=") for part in line.split(b";"))
        if key.strip() == wanted
    ]
    return found[0].decode("latin-1") if len(found) == 1 else None


def one(headers: Headers, name: bytes) -> bytes | None:
    """The value of a header; None if it is not there, empty if it is there more than once."""
    found = [value for header, value in headers if header == name]
    return found[0] if len(found) == 1 else (b"" if found else None)
