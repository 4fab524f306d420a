"""Prints a metric again and again, and notes after each value how many there were."""

import itertools
import os
import pathlib
import time

with pathlib.Path(os.environ["EM_TENSORBOARD_LOG_DIR"], "printed").open("a") as noted:
    for number in itertools.count(1):
        print(f"value={number}")
        noted.write(f"{number}\n")
        noted.flush()
        time.sleep(0.002)
