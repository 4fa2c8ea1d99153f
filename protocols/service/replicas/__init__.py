"""Replicas: one service publishes its models to a place, others follow it and answer."""
