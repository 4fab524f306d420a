"""Models: one way to predict with every kind."""
