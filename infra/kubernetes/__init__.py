"""Runs on a Kubernetes cluster: what is asked of it, what it answers, and what that means."""
