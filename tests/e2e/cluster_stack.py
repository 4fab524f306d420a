"""A real stack whose pools are a cluster's: Prefect and MLflow here, runs in pods.

The cluster is the small one of :mod:`tests.cluster`; the worker is ours, as it runs in a real one.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from infra.door import credential
from infra.settings import Settings
from serving import model_servers
from serving.model_servers import ServerKind
from tests.cluster.cluster import Cluster
from tests.cluster.faults import Fault
from tests.cluster.images import Image, Images
from tests.cluster.kubelet import NodeShape
from tests.cluster.nodes import Nodes
from tests.cluster.rights import ADMIN
from tests.cluster.store import Missing, Store
from tests.cluster.troubles import NotRunning, Troubles
from tests.e2e.stack import ALGORITHMS, Stack, wait_for
from tests.serving import fake_server

ROOT = Path(__file__).parents[2]
IMAGE = "modelyard/flows:test"
COMPONENT = "python:3.11-slim"  # of the components of the tests' pipelines
NAMESPACE = "runs"
_T4 = {"nvidia.com/gpu.product": "Tesla-T4"}
_TAINT = {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}
_SHAPES = (
    NodeShape("node-a", cpu="32", memory="128Gi"),
    NodeShape("node-b", cpu="32", memory="128Gi"),
    NodeShape("node-gpu", cpu="16", memory="64Gi", devices={"nvidia.com/gpu": 2}, labels=_T4,
              taints=(_TAINT,)),
)  # fmt: skip
_CLASS = {
    "metadata": {
        "name": "usual",
        "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
    },
    "provisioner": "csi.test",
}
_QUOTA = {"requests.nvidia.com/gpu": "8", "count/jobs.batch": "500"}
# What runs' pods have from Secrets, as an installation's have; a script is to find none of it.
# Random, so that no file of the checkout has them.
CANARIES = {
    "MODELYARD_S3_ACCESS_KEY_ID": f"canary-key-id-{secrets.token_hex(8)}",
    "MODELYARD_S3_SECRET_ACCESS_KEY": f"canary-secret-key-{secrets.token_hex(8)}",
}
CANARIES_SINCE = time.time()
_ENDED = {"COMPLETE", "FAIL TRAIN", "STOPPED", "CREATE FAILED", "TIMED OUT"}


class ClusterStack(Stack):
    """A stack whose runs are pods."""

    def __init__(self, **settings: Any) -> None:
        """Settings are fields of the cluster's file that differ from the usual."""
        super().__init__()
        self.data = self._place / "data"
        self.data.mkdir()
        self._settings = settings
        self._endpoints: dict[str, str] = {}
        self._workers: list[subprocess.Popen[bytes]] = []
        self.cluster = Cluster(self._place / "cluster", nodes=self._nodes)

    def _nodes(self, store: Store, folder: Path) -> Nodes:
        path = os.pathsep.join([str(Path(sys.executable).parent), "/usr/bin", "/bin"])
        image = Image(
            env={"PATH": path, "PYTHONPATH": str(ROOT)},
            holds=(str(ROOT), str(self.home), sys.prefix),
        )
        shares = {"nfs.test:/algorithms": ALGORITHMS, "nfs.test:/data": self.data}
        bare = Image(env={"PATH": path}, holds=(sys.prefix,))
        servers = fake_server.install(self._place / "servers")
        server = Image(env={"PATH": f"{servers}{os.pathsep}{path}"},
                       holds=(str(ROOT), str(servers), sys.prefix))  # fmt: skip
        images = Images({
            IMAGE: image, COMPONENT: bare,
            **{model_servers.image(kind, Settings()): server for kind in ServerKind},
        })  # fmt: skip
        made = Nodes(store, folder, images, _SHAPES, shares=shares)
        self.troubles = Troubles(store, made)
        return made

    @property
    def log(self) -> Path:
        """What the worker writes."""
        return self._place / "worker.log"

    def begin(self) -> None:
        """Start the cluster, the stack and the worker."""
        self.cluster.start()
        self.make("Namespace", NAMESPACE)
        self.cluster.call(self.cluster.store.create, "StorageClass", _CLASS)
        self.make("ResourceQuota", "gpus", spec={"hard": _QUOTA})
        self.extra["MODELYARD_NAS"] = json.dumps(
            {"algorithms": str(ALGORITHMS), "data": str(self.data)}
        )
        self.extra["MODELYARD_CLUSTER"] = str(self._cluster_file())
        kubeconfig = self.cluster.kubeconfig(ADMIN, NAMESPACE)
        self.extra["KUBECONFIG"] = str(kubeconfig)
        shutil.copy(kubeconfig, self.data / "kubeconfig")
        self.do("up", "--detach")
        self._point_runs_here()
        self.do("deploy", "--pools", "kubernetes")
        self.start_worker()
        wait_for(self._is_told, 60, "the worker to have told what the cluster can give")

    def _is_told(self) -> bool:
        url = f"{self.endpoints()['PREFECT_API_URL']}/variables/name/modelyard_capacity_gpu"
        try:
            with self.urlopen(url, timeout=10):
                return True
        except OSError:
            return False

    def make(self, kind: str, name: str, **parts: Any) -> None:
        """Make an object in the cluster."""
        metadata = {"name": name, **({} if kind == "Namespace" else {"namespace": NAMESPACE})}
        self.cluster.call(self.cluster.store.create, kind, {"metadata": metadata, **parts})

    def delete(self, kind: str, name: str) -> None:
        """Delete an object of the cluster."""
        with contextlib.suppress(Missing):
            self.cluster.call(self.cluster.store.delete, kind, NAMESPACE, name)

    def pod_dies(self, how: str, pod: str) -> None:
        """Have a pod run out of memory (``oom``) or be evicted (``evict``)."""
        does = {"oom": self.troubles.out_of_memory, "evict": self.troubles.evict}[how]
        with contextlib.suppress(NotRunning):
            self.cluster.call(does, NAMESPACE, pod)

    def fault(self, **told: Any) -> None:
        """Have the API server fail; see :class:`tests.cluster.faults.Fault`."""
        self.cluster.call(self.cluster.server.faults.add, Fault(**told))

    def clear_faults(self) -> None:
        """Have the API server be well again."""
        self.cluster.call(self.cluster.server.faults.clear)

    def outage(self, seconds: float) -> None:
        """Have the API server be away for so long; it is, when this returns."""
        self.cluster.do(self.cluster.server.outage(seconds))

    def nodes(self) -> list[str]:
        """The names of the cluster's nodes."""
        return [shape.name for shape in _SHAPES]

    def lose_node(self, name: str, *, processes_go_on: bool = False) -> None:
        """Have a node fall silent: dead, or only out of reach."""
        self.cluster.do(self.troubles.lose_node(name, processes_go_on=processes_go_on))

    def node_comes_back(self, name: str) -> None:
        """Have a lost node be there again."""
        self.cluster.call(self.troubles.find_node, name)

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
            "env": {
                "MODELYARD_PIPELINE_STAGING_URI": "nas://data:/staging",
                # The small cluster gives no tokens to service accounts.
                "KUBECONFIG": "/nas/data/kubeconfig",
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
        if not self._endpoints:
            self._endpoints = self._ask_endpoints()
        return dict(self._endpoints)

    def _ask_endpoints(self) -> dict[str, str]:
        found = json.loads(
            self.execute(
                "import json; from infra import home; from infra.stack import client; "
                "print(json.dumps(client.endpoints(home.current()).as_dict()))"
            )
        )
        return {
            "PREFECT_API_URL": found["prefect_api_url"],
            "MLFLOW_TRACKING_URI": found["mlflow_tracking_uri"],
            "MODELYARD_DATABASE_URL": found["database_url"],
            **self.credential.environment(),
        }

    def _point_runs_here(self) -> None:
        ends = self.endpoints()
        names = ("MODELYARD_DATABASE_URL", *credential.VARIABLES)
        secret = {**{name: ends.pop(name) for name in names}, **CANARIES}
        self.make("ConfigMap", "modelyard-runs", data=ends)
        coded = {name: base64.b64encode(text.encode()).decode() for name, text in secret.items()}
        self.make("Secret", "modelyard-runs", type="Opaque", data=coded)

    def start_worker(self) -> None:
        """Start a worker, beside those that run."""
        with self.log.open("ab") as log:
            worker = subprocess.Popen(
                [sys.executable, "-P", "-m", "modelyard.kubernetes_worker", "gpu", "cpu"],
                env={**self.env, **self.endpoints()},
                stdout=log, stderr=log, cwd=self.home,
            )  # fmt: skip
        self._workers.append(worker)

    def kill_worker(self) -> None:
        """Kill the worker that was started first outright."""
        worker = self._workers.pop(0)
        worker.kill()
        worker.wait(30)

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

    def _list(self, kind: str, run: str) -> list[dict[str, Any]]:
        labels = f"modelyard/flow-run={run}" if run else "modelyard/flow-run"
        return self.cluster.call(self.cluster.store.list, kind, NAMESPACE, labels)

    def log_of(self, run: str) -> str:
        """What stands in a run's log in Prefect."""
        read = f"print(json.dumps(runs.logs('{run}')))"
        lines = (
            "import json; from flows.connection import connected; from registry.runs import runs"
        )
        return "\n".join(json.loads(self.execute(f"{lines}\nwith connected(): {read}")))

    def whole_log_of(self, run: str) -> str:
        """As `log_of`, of a run that has ended: its pods send their last lines after its state."""
        self.wait_until_gone(run)
        return self.log_of(run)

    def jobs(self, run: str = "") -> list[dict[str, Any]]:
        """The run's Jobs, or those of all."""
        return self._list("Job", run)

    def claims(self) -> list[dict[str, Any]]:
        """The claims of volumes that there are."""
        return self.cluster.call(self.cluster.store.list, "PersistentVolumeClaim", NAMESPACE)

    def pods(self, run: str = "") -> list[dict[str, Any]]:
        """The run's pods, or those of all."""
        return self._list("Pod", run)

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
        """End the workers, the cluster and the stack."""
        if not self._place.exists():  # it is closed
            return
        for worker in self._workers:
            worker.send_signal(signal.SIGTERM)
        for worker in self._workers:
            try:
                worker.wait(20)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait(20)
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
