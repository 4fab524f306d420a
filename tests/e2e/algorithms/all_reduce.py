"""Adds up the ranks of all processes with PyTorch, says the sum, and does what it is told to."""

import argparse
import os
import signal
import sys
from pathlib import Path

import torch
import torch.distributed as dist

parser = argparse.ArgumentParser()
parser.add_argument("--dies", type=int, default=-1)
parser.add_argument("--how", default="exit")
options = parser.parse_args()

dist.init_process_group("gloo")
rank = dist.get_rank()
total = torch.tensor([float(rank + 1)])
dist.all_reduce(total)
# One write: under torchrun a node's processes share one output, and print() writes the end of the
# line by itself where Python does not buffer.
said = f"rank={rank} world_size={dist.get_world_size()} all_reduce={total.item():g}\n"
os.write(sys.stdout.fileno(), said.encode())
Path(os.environ["EM_MODEL_DIR"], f"{rank}.txt").write_text(f"{total.item():g}")
dist.barrier()
if rank == options.dies:
    if options.how == "exit":
        sys.exit(5)
    os.kill(os.getpid(), signal.SIGKILL)
dist.barrier()
dist.destroy_process_group()
