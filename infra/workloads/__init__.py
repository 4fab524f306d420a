"""Workloads: processes and containers that Modelyard starts, and the environments they run in."""
