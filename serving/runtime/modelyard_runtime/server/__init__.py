"""The inference server: models behind HTTP, in the protocols that their clients speak."""
