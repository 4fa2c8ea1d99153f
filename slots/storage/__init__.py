"""Model folders on disk: states written whole or not at all, generations, and the way back."""

from __future__ import annotations

from slots.storage.atomic import write_file as write_file
from slots.storage.atomic import write_text as write_text
from slots.storage.generations import Generation as Generation
from slots.storage.generations import generation_of as generation_of
from slots.storage.generations import log as log
from slots.storage.generations import undo as undo
from slots.storage.locking import reserved as reserved
from slots.storage.pruning import Pruned as Pruned
from slots.storage.pruning import prune as prune
from slots.storage.states import State as State
from slots.storage.store import check_target as check_target
from slots.storage.store import read_headers as read_headers
from slots.storage.store import read_state as read_state
from slots.storage.store import write_state as write_state
