"""Whether a pipeline that was read can run: all that is wrong with it, each with its place."""

from pipelines.validation.checking import check, faults

__all__ = ["check", "faults"]
