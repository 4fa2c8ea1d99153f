"""HTTP routes of the service's own interface."""
