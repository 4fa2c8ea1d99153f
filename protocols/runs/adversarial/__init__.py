"""The protocol of adversarial attacks, and what it is compared with."""
