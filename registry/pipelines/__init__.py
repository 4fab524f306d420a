"""Uploaded pipelines, and the nodes and artifacts of pipeline runs."""

# Modules that other packages may import. Nothing is imported here, so that each
# costs only what it uses.
__all__ = [
    "pipeline_artifacts",
    "pipeline_nodes",
    "pipeline_removal",
    "pipeline_rename",
    "pipeline_views",
    "pipelines",
]
