"""Memorization: fitting noise, which examples are learnt when, and a network made to remember."""
