"""What a user would pick instead: thin adapters to libraries, and small methods written from their papers."""
