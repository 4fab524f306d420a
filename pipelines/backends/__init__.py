"""What runs a component's container: here as a process, with Docker, or on a cluster."""
