"""Conversion of Katib Experiments to parameters of the flow ``tune``."""

from tuning.katib.experiment import ConvertedExperiment, read

__all__ = ["ConvertedExperiment", "read"]
