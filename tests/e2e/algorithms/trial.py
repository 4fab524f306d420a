"""A trial that does as its hyperparameters say, step by step, and writes down that it did.

It resumes from its checkpoint. In the ledger stands a line for each begin and each end.
"""

import argparse
import os
import pathlib
import time

parser = argparse.ArgumentParser()
parser.add_argument("--x", type=float, default=0.5)
parser.add_argument("--how", default="well")
parser.add_argument("--steps", type=int, default=4)
parser.add_argument("--seconds", type=float, default=0.0)
parser.add_argument("--ledger", default=os.devnull)
parser.add_argument("--until", default="")
options, _ = parser.parse_known_args()

# What the last report is multiplied by; anything else reports nothing like it.
worse = {"well": 1.0, "better": 0.5, "best": 0.0, "badly": 9.0, "hopelessly": 9.0}


def ledger(word):
    with pathlib.Path(options.ledger).open("a") as file:
        file.write(f"{word} x={options.x!r} how={options.how}\n")


ledger("begins")
checkpoint = pathlib.Path(os.environ["EM_CHECKPOINT_DIR"], "step")
begin = int(checkpoint.read_text()) if checkpoint.exists() else 0
if begin:
    print(f"resumed after step {begin}")
while options.until and not pathlib.Path(options.until).exists():
    time.sleep(0.02)
if options.how == "fails":
    raise SystemExit("it was told to")
for step in range(begin + 1, options.steps + 1):
    if options.how in worse:
        print(f"loss={options.x * worse[options.how] + 1 / step} accuracy: {step / 10}")
    elif options.how == "nan" and step == 1:
        print("loss=nan")
    elif options.how == "pushes":
        import mlflow

        mlflow.log_metric("loss", options.x + 1 / step, step=step)
    partial = checkpoint.with_name(f".{checkpoint.name}")  # a dot: not to be mirrored
    partial.write_text(str(step))
    partial.replace(checkpoint)
    time.sleep(options.seconds)
if options.how == "hopelessly":
    time.sleep(600)  # until somebody sees how bad it is
pathlib.Path(os.environ["EM_MODEL_DIR"], "model.txt").write_text(f"{options.how} {options.x}")
ledger("ends")
