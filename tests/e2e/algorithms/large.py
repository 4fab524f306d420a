"""Leaves a model of 5 MB."""

import os
import pathlib

pathlib.Path(os.environ["EM_MODEL_DIR"], "weights").write_bytes(os.urandom(5_000_000))
