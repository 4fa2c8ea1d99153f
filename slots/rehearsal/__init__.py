"""A bounded memory of the old data, and what it tells: how pure groups are, and what an update would spoil."""

from __future__ import annotations

from slots.rehearsal.group_purity import GroupRadius as GroupRadius
from slots.rehearsal.group_purity import group_radius as group_radius
from slots.rehearsal.judgement import decide_scope as decide_scope
from slots.rehearsal.judgement import harmless as harmless
from slots.rehearsal.memory import RehearsalMemory as RehearsalMemory
from slots.rehearsal.memory import remember as remember
