"""Where the trials of a tuning run: beside it, or each as a run of its own in a pool."""
