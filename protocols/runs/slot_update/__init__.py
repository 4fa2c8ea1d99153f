"""The protocol of updates with new classes, and what it is compared with."""
