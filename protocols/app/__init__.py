"""What the product does: fit, update, clean, novelty, history."""
