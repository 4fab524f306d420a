"""What lets MLflow load the models that runs leave: an MLmodel file, and a loader module.

``loaders`` holds the loader modules, one for each kind of file. A copy is shipped with each model,
so they import only what that kind needs, and nothing of Modelyard; nothing here imports them.
"""

# Modules that other packages may import.
__all__ = ["mlmodel"]
