"""The protocol of continual learning, and what it is compared with."""
