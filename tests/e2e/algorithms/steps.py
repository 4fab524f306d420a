"""Counts steps, one a tenth of a second, with a checkpoint after each."""

import argparse
import os
import pathlib
import time

parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=3)
parser.add_argument("--seconds", type=float, default=0.1)
arguments, _ = parser.parse_known_args()

begin = 0
resumed = os.environ.get("EM_CHECKPOINT_INPUT_DIR")
if resumed:
    begin = int(pathlib.Path(resumed, "step").read_text())
    print(f"resumed from step {begin}")
for step in range(begin + 1, arguments.steps + 1):
    print(f"step {step} loss={1 / step:.4f}")
    checkpoint = pathlib.Path(os.environ["EM_CHECKPOINT_DIR"], "step")
    partial = checkpoint.with_name(f".{checkpoint.name}")  # a dot: not to be mirrored
    partial.write_text(str(step))
    partial.replace(checkpoint)
    time.sleep(arguments.seconds)
pathlib.Path(os.environ["EM_MODEL_DIR"], "model.txt").write_text(f"{arguments.steps} steps")
