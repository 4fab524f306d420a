"""Runs of every flow: Prefect's flow runs, in the reference's words, with their MLflow side."""

# Modules that other packages may import. Nothing is imported here: pages and commands read a
# status word without loading the clients of Prefect and MLflow.
__all__ = [
    "labels",
    "pending_reasons",
    "publish_targets",
    "run_attempts",
    "run_comparison",
    "run_counts",
    "run_filters",
    "run_monitor",
    "run_names",
    "run_nodes",
    "run_requests",
    "run_results",
    "run_retries",
    "run_tagging",
    "run_tags",
    "run_views",
    "runs",
    "statuses",
    "tensorboard_logs",
]
