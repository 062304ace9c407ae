"""Runs and what they say: cells, comparisons over seeds, experiments of papers, benchmarks.

`cell` and `runner` train networks once each, `compare` compares variants, `experiment` and
`papers/` are the tables of papers, `bench` times steps.
"""
