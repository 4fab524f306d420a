"""Says which GPUs it sees, and goes on until there is a file called as it is told."""

import argparse
import os
import time
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("--until", type=Path)
options, _ = parser.parse_known_args()

print(f"sees [{os.environ['CUDA_VISIBLE_DEVICES']}]", flush=True)
while options.until and not options.until.exists():
    time.sleep(0.05)
