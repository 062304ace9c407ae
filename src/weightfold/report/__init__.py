"""Report pages, figures and the statistics they print; knows what it is given, trains nothing."""
