"""The protocol of clustering and discovery, and what it is compared with."""
