"""Slices through the loss: lines and planes in the space of weights."""
