"""The protocols: each claim measured against what a user would pick instead, on the same features."""
