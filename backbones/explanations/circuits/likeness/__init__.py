"""How alike two networks see the same inputs."""
