"""Damage files in every way that comes to mind; each is refused by name, or does no harm.

`harness.Format` says how a good example is written and read; `harness.attack` mutates it. The
formats stand in `FORMATS` of the other modules of this folder; tests/mutations.py runs them all.
"""
