"""Loader modules, one for each kind of model, as MLflow calls them: ``_load_pyfunc(path)``.

A copy of its module is shipped with each registered model, so a module imports only what its kind
needs, and nothing of Modelyard or of its siblings.
"""

from pathlib import Path

FOLDER = Path(__file__).parent
