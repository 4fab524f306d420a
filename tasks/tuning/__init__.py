"""A tuning: its request, and the loop that asks for trials, judges them and ends."""

# Modules that other packages may import. Nothing is imported here, so that each
# costs only what it uses.
__all__ = ["tuning_dispatch", "tuning_loop", "tuning_request", "tuning_warm_start"]
