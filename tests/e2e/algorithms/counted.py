"""Leaves a line in a folder that all machines share, each time that it begins."""

import argparse
import os
import pathlib
import time

parser = argparse.ArgumentParser()
parser.add_argument("--folder")
parser.add_argument("--name", default=os.environ.get("MLFLOW_RUN_ID"))
parser.add_argument("--seconds", type=float, default=1.0)
arguments, _ = parser.parse_known_args()

with pathlib.Path(arguments.folder, arguments.name).open("a") as file:
    file.write("began\n")
time.sleep(arguments.seconds)
pathlib.Path(os.environ["EM_MODEL_DIR"], "model.txt").write_text("made")
