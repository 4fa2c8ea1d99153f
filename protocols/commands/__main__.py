"""``python -m protocols.commands``: the ``slots`` command where another distribution has taken its name."""

from __future__ import annotations

from protocols.commands import main

if __name__ == "__main__":
    main()
