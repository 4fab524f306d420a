"""Launchers of a tuning's trials: inline in its process, or as runs in a work pool."""
