"""Models in memory: inputs of requests, micro-batches, and generations that are swapped while answers go on."""
