"""Data sets of others as arrays: of PyTorch, and of Hugging Face."""

from __future__ import annotations

from slots.sources.reading import DataArrays as DataArrays
from slots.sources.reading import is_source as is_source
from slots.sources.reading import read_source as read_source
