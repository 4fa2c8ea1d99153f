"""Routes that start work, follow it, and lead through a model's generations."""
