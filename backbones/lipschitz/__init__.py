"""A network that turns no change of its input into a larger one: certificates hold behind it."""
