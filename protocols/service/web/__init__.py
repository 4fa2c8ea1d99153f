"""The server around the application: deadlines, bounds on bodies, starting and stopping."""
