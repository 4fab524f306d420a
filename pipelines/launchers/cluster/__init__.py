"""Components as Jobs of a Kubernetes cluster, their files staged through object storage."""
