"""Ways to run the steps of a training."""
