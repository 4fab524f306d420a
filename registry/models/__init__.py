"""Models and their versions: MLflow's registry, with the lineage of what Modelyard made."""

# Modules that other packages may import. Nothing is imported here, so that each
# costs only what it uses.
__all__ = [
    "evaluation_tags",
    "model_aliases",
    "model_creation",
    "model_lineage",
    "model_parameters",
    "model_references",
    "model_removal",
    "model_states",
    "model_updates",
    "model_versions",
    "model_views",
    "models",
]
