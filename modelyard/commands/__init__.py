"""The verbs of the command; each module has its Typer application in ``app``."""
