"""A training: its request, its templates, and the steps that its flow takes."""

# Modules that other packages may import. Nothing is imported here, so that each
# costs only what it uses.
__all__ = [
    "checkpoints",
    "metrics_collector",
    "metrics_recovery",
    "model_publishing",
    "remote_nodes",
    "script_execution",
    "training_request",
    "training_steps",
    "training_templates",
]
