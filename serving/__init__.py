"""Serving of models: the servers that have a model loaded, and the inference runtime.

The runtime is a distribution of its own in ``runtime/``, which imports nothing of this package.
"""
