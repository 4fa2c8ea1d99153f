"""The pages of keys, of the log of events, and the one on which a key is entered."""
