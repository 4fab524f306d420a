"""Tunings and their trials: rows of the catalogue, and the trials' runs in MLflow and Prefect."""

# Modules that other packages may import. Nothing is imported here, so that each
# costs only what it uses.
__all__ = [
    "trial_flows", "trial_results", "trial_runs", "trials", "tuning_removal", "tuning_views",
    "tunings",
]  # fmt: skip
