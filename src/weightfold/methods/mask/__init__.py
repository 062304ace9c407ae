"""Fixed masks: `chart` holds both charts, `verb` is `wf.mask`."""
