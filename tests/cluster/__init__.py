"""A small Kubernetes of the tests: an API over HTTP, and nodes that run pods as processes."""
