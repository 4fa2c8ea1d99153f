"""Routes on keys, sessions of browsers and the log of events."""
