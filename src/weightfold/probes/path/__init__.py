"""Paths between two networks: how high the loss must rise on the way."""
