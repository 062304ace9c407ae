"""Experiments: every module here has `EXPERIMENTS`, a tuple; `_name.py` is shared by some."""
