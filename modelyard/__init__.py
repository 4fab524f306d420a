"""The front door: the modelyard command."""
