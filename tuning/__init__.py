"""Search, early stopping and the collection of metrics."""
