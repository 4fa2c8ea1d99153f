"""Options of all commands: how much is said, settings from a file and the environment; completion for shells."""

from __future__ import annotations

from protocols.commands.parsing.common import with_common_options as with_common_options
from protocols.commands.parsing.completion import completion as completion
