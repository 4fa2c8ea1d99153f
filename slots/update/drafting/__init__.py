"""New slots before anything judges them: seeds, clusters and pseudo-labels."""
