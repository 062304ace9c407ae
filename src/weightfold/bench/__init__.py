"""What `weightfold bench` measures: ratios of things timed in turn on this machine."""
