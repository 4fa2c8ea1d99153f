"""JSON of strangers, looked at before anybody makes objects of it: how much, how deep, and with how many meanings."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from protocols.service.api.problems import Problem
from protocols.service.settings import Limits

_NUMBERS = re.compile(rb"\[[-+0-9.eE,\s]*+\]")  # nothing in such a list has two meanings
_TEXTS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)  # one that does not end goes as far as there is
_OTHERS = bytes(set(range(256)) - set(b"[]{}"))
_ALIKE = bytes.maketrans(b"{}", b"[]")
_TEXTS_A_TURN = 50_000
_BRANCH = 4  # values that a list or an object counts as: it takes as much memory


def check_json(document: bytes, limits: Limits) -> None:
    """Refuse a JSON document that takes far more memory than its bytes, or that parsers read differently.

    Parameters
    ----------
    document : bytes
        As it came. What is no JSON at all is left to whoever reads it.
    limits : Limits
        `Limits.values` and `Limits.depth`.

    Raises
    ------
    Problem
        413 for too many values; 422 for one that is too deep, is not UTF-8, holds a key twice, NaN, infinity, or a
        number of more digits than are read.

    Examples
    --------
    >>> check_json(b'{"inputs": [[1, 2], [3, 4]]}', Limits())
    >>> check_json(b'{"a": 1, "a": 2}', Limits())
    Traceback (most recent call last):
    ...
    protocols.service.api.problems.Problem: A JSON object must have each key once, got 'a' twice. Send one of them.
    """
    if document.count(b'"') // 2 > limits.values or (
        _counted(document) > limits.values and _counted(_without_texts(document)) > limits.values
    ):
        raise Problem(
            413,
            f"A JSON document may hold {limits.values} values, a list or an object counting as {_BRANCH}. "
            "Send several requests.",
        )
    if _branches(document) > limits.depth and _deeper(document, limits.depth):
        raise Problem(422, f"A JSON document may be {limits.depth} levels deep. Send a flatter one.")
    _check_meaning(document)


def _without_texts(document: bytes) -> bytes:
    """The document without its texts, in turns: each text that is taken out costs memory as long as others are."""
    n_texts = _TEXTS_A_TURN
    while n_texts == _TEXTS_A_TURN:
        document, n_texts = _TEXTS.subn(b"", document, _TEXTS_A_TURN)
    return document


def _branches(document: bytes) -> int:
    return document.count(b"[") + document.count(b"{")


def _counted(document: bytes) -> int:
    return document.count(b",") + _BRANCH * _branches(document)


def _deeper(document: bytes, levels: int) -> bool:
    """Whether brackets lie deeper in each other: so many times those that hold nothing are taken out."""
    brackets = _without_texts(document).translate(_ALIKE, _OTHERS)
    for _ in range(levels):
        if not brackets:
            return False
        brackets = brackets.replace(b"[]", b"")
    return bool(brackets)


def _check_meaning(document: bytes) -> None:
    """Read it without its lists of numbers, which are most of it."""
    try:
        if b"\x00" in document:  # UTF-16 and UTF-32 have them, and some parsers guess
            raise _not_utf8()
        try:
            _read(_NUMBERS.sub(b"[]", document))
        except Problem:  # it may be about a text that looked like a list of numbers
            _read(document)
    except UnicodeDecodeError as error:
        raise _not_utf8() from error
    except json.JSONDecodeError:
        return
    except ValueError as error:
        raise Problem(422, "A number of the JSON document has more digits than are read. Round it.") from error


def _read(document: bytes) -> None:
    _DECODER.decode(document.decode())


def _not_utf8() -> Problem:
    return Problem(422, "A JSON document must be UTF-8, without null characters. Encode it.")


def _each_once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise Problem(422, f"A JSON object must have each key once, got {twice[:40]!r} twice. Send one of them.")
    return found


def _no_such_number(word: str) -> float:
    raise Problem(422, f"Numbers must be finite, got {word}. Drop or impute such values.")


_DECODER = json.JSONDecoder(object_pairs_hook=_each_once, parse_constant=_no_such_number)
