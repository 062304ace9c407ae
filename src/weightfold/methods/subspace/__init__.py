"""Random subspaces: `chart`, its random `projections`, and `verb`, which is `wf.subspace`."""
