"""The `lifetime` protocol: thirty days of a service, and of what people would build instead."""
