"""Modelyard's own pages: what neither Prefect's nor MLflow's UI shows. They only show."""
