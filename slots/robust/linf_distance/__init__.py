"""Slots compared by the largest entry of a difference, whose answers are certified for changes measured likewise."""
