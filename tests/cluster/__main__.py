"""A cluster as a process of its own: ends with its parent, with a signal, or after its time."""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import threading
from pathlib import Path

from tests.cluster.cluster import Cluster

_LOOK = 0.5


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="on loopback; 0 takes a free one")
    parser.add_argument("--folder", type=Path, required=True, help="of its files")
    parser.add_argument("--seconds", type=float, default=1800, help="it ends after so long")
    parser.add_argument("--nodes", default="", help="MODULE:FUNCTION that makes the nodes")
    given = parser.parse_args()
    module, _, function = given.nodes.partition(":")
    nodes = getattr(importlib.import_module(module), function) if module else None
    parent, over = os.getppid(), threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: over.set())
    left = given.seconds
    with Cluster(given.folder, port=given.port, nodes=nodes) as cluster:
        print(next(given.folder.glob("kubeconfig-*")), cluster.url, flush=True)
        while left > 0 and os.getppid() == parent and not over.wait(_LOOK):
            left -= _LOOK


if __name__ == "__main__":
    main()
