"""One step of a training on fixed features, for large work and for small."""
