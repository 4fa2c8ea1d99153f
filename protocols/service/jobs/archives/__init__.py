"""A model as one file: packed, taken in, unpacked."""
