"""Toys in a folder."""
