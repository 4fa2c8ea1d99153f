"""What runs in a job's own process; nothing of the web is imported here."""
