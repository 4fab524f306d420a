"""Pipeline runs: requests, recording of nodes, publication of outputs, logs and clean-up."""
