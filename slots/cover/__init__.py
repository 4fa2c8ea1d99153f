"""Set cover: as few candidates as possible for every example."""

from __future__ import annotations

from slots.cover.bits import CoverBlock as CoverBlock
from slots.cover.bits import pack_bits as pack_bits
from slots.cover.bits import unpack_bits as unpack_bits
from slots.cover.by_class import class_cover as class_cover
from slots.cover.coverage import cap_thresholds as cap_thresholds
from slots.cover.coverage import coverage_bits as coverage_bits
from slots.cover.fused import has_fused_kernels as has_fused_kernels
from slots.cover.greedy import check_limits as check_limits
from slots.cover.greedy import greedy_set_cover as greedy_set_cover
from slots.cover.greedy import greedy_set_cover_packed as greedy_set_cover_packed
from slots.cover.refined import check_search as check_search
from slots.cover.refined import compile_search as compile_search
from slots.cover.refined import refined_set_cover as refined_set_cover
from slots.cover.refined import refined_set_cover_packed as refined_set_cover_packed
