"""Kubeflow Pipelines v2: read the IR, plan it, run it. Nothing here knows Prefect."""
