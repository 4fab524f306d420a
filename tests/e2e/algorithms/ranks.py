"""Adds up the ranks of all processes over a socket, says the sum, and does what it is told to."""

import argparse
import contextlib
import os
import signal
import socket
import sys
import time

parser = argparse.ArgumentParser()
parser.add_argument("--dies", type=int, default=-1)
parser.add_argument("--how", default="exit")
options = parser.parse_args()

rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
leader = (os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))


def joined():
    """The connections to all others, or to the leader."""
    if rank == 0:
        server = socket.create_server(("", leader[1]))
        return [server.accept()[0] for _ in range(size - 1)]
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            return [socket.create_connection(leader, timeout=5)]
        time.sleep(0.05)
    raise TimeoutError("the leader does not answer")


others = joined()
for one in others:
    one.settimeout(120)
if rank == 0:
    total = 1 + sum(one.recv(1)[0] for one in others)
    for one in others:
        one.sendall(bytes([total]))
else:
    others[0].sendall(bytes([rank + 1]))
    total = others[0].recv(1)[0]
print(f"rank={rank} world_size={size} all_reduce={total}", flush=True)
if rank == options.dies:
    if options.how == "exit":
        sys.exit(5)
    os.kill(os.getpid(), signal.SIGKILL)
if options.dies >= 0:
    time.sleep(600)  # it is ended with the one that dies
