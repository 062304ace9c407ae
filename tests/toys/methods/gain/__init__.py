"""A toy method: `chart`, and `verb`."""
