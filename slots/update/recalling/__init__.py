"""Updates of a model that is told a little again and again: what to ask, and what to make of the answers."""
