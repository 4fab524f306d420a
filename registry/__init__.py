"""Runs, models and what neither Prefect nor MLflow knows."""

import infra  # noqa: F401  (first of all: it keeps libraries from phoning home)
