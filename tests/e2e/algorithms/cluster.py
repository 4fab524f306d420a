"""Says where it stands in its cluster, and meets the others through the first one's address."""

import json
import os
import socket
import time

config = json.loads(os.environ["TF_CONFIG"])
index = config["task"]["index"]
own = config["cluster"]["worker"][index].rsplit(":", 1)
with socket.create_server((own[0], int(own[1]))) as server:
    print(f"worker {index} of {len(config['cluster']['worker'])} listens", flush=True)
    others = [one for number, one in enumerate(config["cluster"]["worker"]) if number != index]
    for other in others:
        host, port = other.rsplit(":", 1)
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection((host, int(port)), timeout=5).close()
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
    for _ in others:
        server.accept()[0].close()
print(f"met={len(others)} rank={os.environ['RANK']} of={os.environ['WORLD_SIZE']}", flush=True)
