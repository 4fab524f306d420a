"""Validation of a pipeline: all faults, each with its place."""

from pipelines.validation.checking import check, faults

__all__ = ["check", "faults"]
