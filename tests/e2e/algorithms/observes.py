"""Leaves metrics in every way that there is."""

import json
import os

from tensorboard.summary import Writer

writer = Writer(os.environ["EM_TENSORBOARD_LOG_DIR"] + "/validation")
for step in range(3):
    print(f"printed={step}")
    print(json.dumps({"as_json": step / 2, "step": 10 * step}), flush=True)
    writer.add_scalar("loss", 1 / (step + 1), 100 * step)
writer.close()
