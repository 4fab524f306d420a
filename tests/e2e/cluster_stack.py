"""A real stack whose pools are a cluster's: Prefect and MLflow here, runs in pods.

The cluster is the small one of :mod:`tests.cluster`, a process of its own; the worker is ours, as
it runs in a real one.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.remote import Remote
from tests.e2e.stack import ALGORITHMS, Stack, wait_for

ROOT = Path(__file__).parents[2]
IMAGE = "modelyard/flows:test"
NAMESPACE = "runs"
_ENDED = {"COMPLETE", "FAIL TRAIN", "STOPPED", "CREATE FAILED", "TIMED OUT"}


class ClusterStack(Stack):
    """A stack whose runs are pods."""

    def __init__(self, **settings: Any) -> None:
        """Settings are fields of the cluster's file that differ from the usual."""
        super().__init__()
        self.data = self._place / "data"
        self.data.mkdir()
        self._settings = settings
        self._worker: subprocess.Popen[bytes] | None = None
        self.cluster = Remote(self._place / "cluster", namespace=NAMESPACE)

    @property
    def log(self) -> Path:
        """What the worker writes."""
        return self._place / "worker.log"

    def begin(self) -> None:
        """Start the cluster, the stack and the worker."""
        self.cluster.start(
            images={IMAGE: {"env": {"PATH": self._path(), "PYTHONPATH": str(ROOT)}}},
            nfs={"nfs.test:/algorithms": str(ALGORITHMS), "nfs.test:/data": str(self.data)},
        )
        self.extra["MODELYARD_NAS"] = json.dumps(
            {"algorithms": str(ALGORITHMS), "data": str(self.data)}
        )
        self.extra["MODELYARD_CLUSTER"] = str(self._cluster_file())
        self.extra["KUBECONFIG"] = str(self.cluster.kubeconfig)
        self.do("up", "--detach")
        self._point_runs_here()
        self.do("deploy", "--pools", "kubernetes")
        self.start_worker()

    @staticmethod
    def _path() -> str:
        return os.pathsep.join([str(Path(sys.executable).parent), "/usr/bin", "/bin"])

    def _cluster_file(self) -> Path:
        settings = {
            "namespace": NAMESPACE,
            "image": IMAGE,
            "config_map": "modelyard-runs",
            "secret": "modelyard-runs",
            "nas": {
                "algorithms": {"server": "nfs.test", "path": "/algorithms"},
                "data": {"server": "nfs.test", "path": "/data"},
            },
            "pending_minutes": 5,
            "grace_seconds": 5,
            **self._settings,
        }
        file = self._place / "cluster.yaml"
        file.write_text(yaml.safe_dump(settings))
        return file

    def endpoints(self) -> dict[str, str]:
        """Where the stack's services are, as a process outside of it is told."""
        found = json.loads(
            self.python(
                "import json; from infra import home; from infra.stack import client; "
                "print(json.dumps(client.endpoints(home.current()).as_dict()))"
            )
        )
        return {
            "PREFECT_API_URL": found["prefect_api_url"],
            "MLFLOW_TRACKING_URI": found["mlflow_tracking_uri"],
            "MODELYARD_DATABASE_URL": found["database_url"],
        }

    def _point_runs_here(self) -> None:
        ends = self.endpoints()
        secret = {"MODELYARD_DATABASE_URL": ends.pop("MODELYARD_DATABASE_URL")}
        self.cluster.make("ConfigMap", "modelyard-runs", data=ends)
        self.cluster.make("Secret", "modelyard-runs", stringData=secret)

    def start_worker(self) -> None:
        """Start the worker; another must not run."""
        with self.log.open("ab") as log:
            self._worker = subprocess.Popen(
                [sys.executable, "-P", "-m", "modelyard.kubernetes_worker", "gpu", "cpu"],
                env={**self.env, **self.endpoints(), "PREFECT_WORKER_QUERY_SECONDS": "0.5"},
                stdout=log, stderr=log, cwd=self.home,
            )  # fmt: skip

    def kill_worker(self) -> None:
        """Kill the worker outright."""
        assert self._worker
        self._worker.kill()
        self._worker.wait(30)

    def nas(self, algorithm: str, **parameters: Any) -> dict[str, Any]:
        """Parameters of a training of one of the test's algorithms, on the cluster's NAS."""
        asked = {"algorithm.uri": "nas://algorithms:/", "algorithm.entry_point": f"{algorithm}.py"}
        return {**asked, **parameters}

    def submit(self, algorithm: str, **parameters: Any) -> str:
        """Start a training on the cluster; the run's id."""
        asked = self.nas(algorithm, **parameters)
        pairs = (f"{key}={json.dumps(value)}" for key, value in asked.items())
        words = [word for pair in pairs for word in ("-p", pair)]
        return str(self.do("run", "train", *words)["flow_run_id"])

    def end_of(self, run: str, timeout: float = 120) -> dict[str, Any]:
        """How a run ended."""
        return self.wait_for_state(run, *_ENDED, timeout=timeout)

    def jobs(self, run: str = "") -> list[dict[str, Any]]:
        """The run's Jobs, or those of all."""
        return self.cluster.list("Job", f"modelyard/flow-run={run}" if run else "")

    def pods(self, run: str = "") -> list[dict[str, Any]]:
        """The run's pods, or those of all."""
        return self.cluster.list("Pod", f"modelyard/flow-run={run}" if run else "")

    def going(self, run: str = "") -> list[str]:
        """The names of pods that have not ended."""
        return [
            pod["metadata"]["name"]
            for pod in self.pods(run)
            if pod.get("status", {}).get("phase") not in {"Succeeded", "Failed"}
        ]

    def wait_until_gone(self, run: str, timeout: float = 60) -> None:
        """Wait until nothing of the run goes on in the cluster."""
        wait_for(lambda: not self.going(run), timeout, f"the pods of {run} to be gone")

    def close(self) -> None:
        """End the worker, the cluster and the stack."""
        if self._worker:
            self._worker.send_signal(signal.SIGTERM)
            try:
                self._worker.wait(20)
            except subprocess.TimeoutExpired:
                self._worker.kill()
                self._worker.wait(20)
        self.cluster.stop()
        super().close()


@contextlib.contextmanager
def running(**settings: Any) -> Iterator[ClusterStack]:
    """A stack on a cluster, for the while."""
    made = ClusterStack(**settings)
    try:
        made.begin()
        yield made
    finally:
        if os.environ.get("MODELYARD_KEEP"):
            print(f"kept: {made.home}", flush=True)
            time.sleep(float(os.environ["MODELYARD_KEEP"]))
        made.close()
