"""Gradient confusion: how much the gradients of mini-batches disagree."""
