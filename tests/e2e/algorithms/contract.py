"""Leaves what it was told as its model."""

import json
import os
import pathlib
import sys

told = {name: value for name, value in os.environ.items() if name.startswith(("EM_", "MLFLOW_"))}
leaked = [name for name in os.environ if name.startswith("PREFECT") or "DATABASE_URL" in name]
folder = pathlib.Path(os.environ["EM_MODEL_DIR"])
(folder / "told.json").write_text(
    json.dumps(
        {"arguments": sys.argv[1:], "env": told, "leaked": leaked, "cwd": str(pathlib.Path.cwd())}
    )
)
