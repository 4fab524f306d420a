"""What lets MLflow load the models that runs leave: an MLmodel file, and a loader module.

The loader modules are the runtime's (``modelyard_runtime.loaders``); a copy is shipped with each
model.
"""

# Modules that other packages may import.
__all__ = ["mlmodel"]
