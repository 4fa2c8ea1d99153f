"""The cover on an NVIDIA GPU: Triton kernels with the same results as the torch path beside them."""

from slots.cover.fused.available import has_fused_kernels as has_fused_kernels
