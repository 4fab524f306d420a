"""Adds up the ranks of all processes with PyTorch, and says the sum."""

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist

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
dist.destroy_process_group()
