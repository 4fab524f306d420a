"""Pipeline runs: what they are told, and what the catalogue keeps of their nodes."""
