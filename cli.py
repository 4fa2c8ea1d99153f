"""The ``slots`` command from a checkout: ``python cli.py``. The installed command starts in `protocols.commands`."""

from __future__ import annotations

from protocols.commands import main

if __name__ == "__main__":
    main()
