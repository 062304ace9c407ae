"""The mechanism: charts, the nets that run with them, selection, files."""
