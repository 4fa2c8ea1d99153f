"""Several processes that work as one: who they are, and how they share numbers. Light while there is only one."""

from __future__ import annotations

from slots.distributed.joining import join as join
from slots.distributed.ranks import ALONE as ALONE
from slots.distributed.ranks import Ranks as Ranks
