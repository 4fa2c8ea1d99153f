"""The installed ``slots`` command, for tests that need a process of its own."""

import sys
from pathlib import Path

SLOTS = [str(Path(sys.executable).with_name("slots"))]
"""Not ``python -m cli``: that would put the current folder first and test the checkout instead of the wheel."""
