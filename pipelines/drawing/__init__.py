"""The graph of a pipeline, or of a run of it: what it shows, where it stands, and as what."""
