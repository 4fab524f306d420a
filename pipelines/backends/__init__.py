"""Backends of components: processes with what is KFP's, and the choice among all."""
