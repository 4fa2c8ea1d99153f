"""New slots trained beside old ones that stay as they are."""
