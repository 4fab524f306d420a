"""Backends of components: KFP components as processes, and the choice of a backend."""
