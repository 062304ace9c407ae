"""Probes: functions of a module and data that return an answer with its uncertainty."""
