"""Local search for smaller covers."""

from __future__ import annotations

from slots.cover.search.components import ComponentSearch as ComponentSearch
from slots.cover.search.components import search_components as search_components
