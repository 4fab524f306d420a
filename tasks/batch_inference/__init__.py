"""Batch inference: predict a data set with a registered model."""
