"""The protocol of label errors, and what it is compared with."""
