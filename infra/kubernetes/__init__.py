"""Runs on a Kubernetes cluster: API client, manifests, diagnosis, worker and reconciler."""
