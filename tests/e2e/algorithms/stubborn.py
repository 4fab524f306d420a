"""Ignores SIGTERM, detaches a child that does too, and says who it is."""

import os
import pathlib
import signal
import subprocess
import sys
import time

signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen(
    [
        sys.executable,
        "-c",
        "import signal, time; signal.signal(15, 1); time.sleep(600)",
    ],
    start_new_session=True,
)
pathlib.Path(os.environ["EM_MODEL_DIR"], "half-written").write_text("not a model yet")
print(f"pids {os.getpid()} {child.pid}", flush=True)
time.sleep(600)
