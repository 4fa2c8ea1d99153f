"""Feature maps that the head sits on; nothing here knows the head."""
