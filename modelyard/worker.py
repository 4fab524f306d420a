"""The worker process of the local stack: ``python -m modelyard.worker POOL...``."""

from __future__ import annotations

import asyncio
import sys

from infra import worker
from registry import tracking

if __name__ == "__main__":
    asyncio.run(worker.work(tuple(sys.argv[1:]), tracking.close_abandoned))
