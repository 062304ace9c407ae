"""Layers of a trained network set back to earlier weights, or taken from another network."""
