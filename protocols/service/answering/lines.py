"""A stream of bytes cut into lines, none of which is held in memory beyond the bound."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Line:
    """One line of a stream.

    Parameters
    ----------
    number : int
        Its place, from 1 on; blank lines count.
    content : bytes or None
        Without the line's end; None where it was longer than the bound.
    """

    number: int
    content: bytes | None

    @property
    def blank(self) -> bool:
        """Whether there is nothing on it."""
        return self.content is not None and not self.content.strip()


class Lines:
    r"""Cuts what comes in into lines.

    Parameters
    ----------
    longest : int
        Bytes of a line, without its end. Of a longer one nothing is kept but that it was there.

    Examples
    --------
    >>> lines = Lines(longest=3)
    >>> lines.feed(b"ab\nc")
    [Line(number=1, content=b'ab')]
    >>> lines.feed(b"defg\nh")
    [Line(number=2, content=None)]
    >>> lines.end()
    [Line(number=3, content=b'h')]
    """

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._parts: list[bytes] = []  # of the line that has not ended
        self._size = 0
        self.ended = 0
        """Lines that have ended (count)."""

    def feed(self, chunk: bytes) -> list[Line]:
        """Take in bytes; the lines that end in them."""
        *whole, rest = chunk.split(b"\n")
        found = []
        for part in whole:
            self._add(part)
            found.append(self._cut())
        self._add(rest)
        return found

    def end(self) -> list[Line]:
        """The last line, where the stream ended without a line's end."""
        return [self._cut()] if self._size else []

    def _add(self, part: bytes) -> None:
        self._size += len(part)
        if self._size > self._longest + 1:  # a carriage return may belong to the line's end
            self._parts.clear()
        elif part:
            self._parts.append(part)

    def _cut(self) -> Line:
        self.ended += 1
        content = b"".join(self._parts).removesuffix(b"\r") if self._size <= self._longest + 1 else None
        if content is not None and len(content) > self._longest:
            content = None
        self._parts, self._size = [], 0
        return Line(self.ended, content)
