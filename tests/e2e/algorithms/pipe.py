"""Leaves a named pipe in its model."""

import os
import pathlib

folder = pathlib.Path(os.environ["EM_MODEL_DIR"])
(folder / "weights").write_text("1")
os.mkfifo(folder / "pipe")
print("once")
