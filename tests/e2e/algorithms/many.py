"""Leaves a model of 200 files."""

import os
import pathlib

for number in range(200):
    pathlib.Path(os.environ["EM_MODEL_DIR"], f"part-{number}").write_text("")
