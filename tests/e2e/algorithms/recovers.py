"""Fails, but for the attempt that resumes from its checkpoint."""

import os
import pathlib
import sys

if not os.environ.get("EM_CHECKPOINT_INPUT_DIR"):
    pathlib.Path(os.environ["EM_CHECKPOINT_DIR"], "begun").touch()
    sys.exit("the first attempt fails")
print("accuracy=0.5")
pathlib.Path(os.environ["EM_MODEL_DIR"], "model.txt").touch()
