"""Convolutional networks set free in their fully-connected space at a time of their training."""
