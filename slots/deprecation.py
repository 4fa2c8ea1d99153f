"""Old names of keywords: still taken, with a word about the new ones."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from dataclasses import is_dataclass
from typing import Any, TypeVar, cast

_Called = TypeVar("_Called", bound=Callable[..., Any])


def renamed(**names: str) -> Callable[[_Called], _Called]:
    """Let a function or class go on taking keywords by their old names.

    Parameters
    ----------
    **names : str
        ``old="new"`` for each keyword. Of a dataclass the old names are readable as attributes, too.

    Returns
    -------
    callable
        A decorator. An old keyword gives a `DeprecationWarning`; an old and its new one together are a `TypeError`.

    Examples
    --------
    >>> @renamed(colour="hue")
    ... def paint(*, hue):
    ...     return hue
    >>> import warnings
    >>> with warnings.catch_warnings(record=True) as said:
    ...     warnings.simplefilter("always")
    ...     paint(colour="red"), str(said[0].message)
    ('red', '`colour` of paint is called `hue` now.')
    """

    def decorate(called: _Called) -> _Called:
        is_class = isinstance(called, type)
        plain = cast(Callable[..., Any], called.__init__ if is_class else called)

        @functools.wraps(plain)
        def taking_both(*args: Any, **kwargs: Any) -> Any:
            for old, new in names.items():
                if old not in kwargs:
                    continue
                if new in kwargs:
                    raise TypeError(f"`{old}` is the old name of `{new}` of {called.__qualname__}. Pass `{new}` alone.")
                message = f"`{old}` of {called.__qualname__} is called `{new}` now."
                warnings.warn(message, DeprecationWarning, stacklevel=2)
                kwargs[new] = kwargs.pop(old)
            return plain(*args, **kwargs)

        if not is_class:
            return cast(_Called, taking_both)
        setattr(called, "__init__", taking_both)  # noqa: B010  # a plain assignment is none that mypy allows
        for old, new in names.items() if is_dataclass(called) else ():
            setattr(called, old, property(functools.partial(_read, new), doc=f"Old name of `{new}`."))
        return called

    return decorate


def _read(name: str, owner: object) -> Any:
    return getattr(owner, name)
