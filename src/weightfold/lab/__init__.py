"""Runs and what they say.

A `Run` is a training (`training`, `domains`) or a call of a probe (`probing`), named by all that
defines it; `runner` makes runs, on what `executors` offer. An `Experiment` declares lines of runs,
measures, printed numbers and claims; `results` reads what they came to, `page` writes it.
`compare`, `strategies` (of a `study` of domains) and `inspect` are experiments made on the fly.
"""
