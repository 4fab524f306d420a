"""Katib: an Experiment as the parameters of the flow ``tune``, and what of it is left out."""

from tuning.katib.experiment import Reading, read

__all__ = ["Reading", "read"]
