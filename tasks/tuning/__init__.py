"""Tunings: their requests, and the loop that runs their trials."""

# Modules that other packages may import. Nothing is imported here, so that each
# costs only what it uses.
__all__ = ["tuning_dispatch", "tuning_loop", "tuning_request", "tuning_warm_start"]
