"""Evaluation of models: metrics of predictions against true values."""
