"""Dies as the kernel's out-of-memory killer makes it die."""

import os
import signal

print("allocating", flush=True)
os.kill(os.getpid(), signal.SIGKILL)
