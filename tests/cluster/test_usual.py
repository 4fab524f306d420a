"""The whole cluster over HTTP, with the nodes and the image that most tests use."""

from __future__ import annotations

import json
from pathlib import Path

from kubernetes import client, config

from tests.cluster.cluster import Cluster
from tests.cluster.small import needs_root
from tests.cluster.usual import FLOWS, GPU, nodes
from tests.processes import eventually

pytestmark = needs_root


def test_a_job_of_the_flows_image_runs_on_a_node_with_gpus(tmp_path: Path) -> None:
    code = "import infra, json, os; print(json.dumps(dict(os.environ)), infra.__name__)"
    limits = {"cpu": "2", "memory": "2Gi", GPU: "2"}
    home = {"name": "home", "mountPath": "/modelyard/home"}
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "gpus"},
        "spec": {
            "backoffLimit": 0,
            "template": {
                "spec": {
                    "restartPolicy": "Never",
                    "tolerations": [{"key": GPU, "operator": "Exists"}],
                    "volumes": [{"name": "home", "emptyDir": {}}],
                    "containers": [
                        {
                            "name": "run",
                            "image": FLOWS,
                            "command": ["python", "-P", "-c", code],
                            "resources": {"limits": limits},
                            "volumeMounts": [home],
                        }
                    ],
                }
            },
        },
    }
    cluster = Cluster(tmp_path, nodes=nodes)
    with cluster:
        file = next(tmp_path.glob("kubeconfig-*"))
        with config.new_client_from_config(str(file)) as api:
            jobs, core = client.BatchV1Api(api), client.CoreV1Api(api)
            jobs.create_namespaced_job("default", job)
            status = eventually(
                lambda: (
                    (one := jobs.read_namespaced_job("gpus", "default").status)
                    and one.completion_time
                    and one
                ),
                "the job is complete",
            )
            (pod,) = core.list_namespaced_pod("default").items
            said = core.read_namespaced_pod_log(
                pod.metadata.name, "default", _preload_content=False
            )
            text = said.data.decode()

    assert [one.type for one in status.conditions] == ["SuccessCriteriaMet", "Complete"]
    assert pod.spec.node_name.startswith("gpu-")
    told, name = text.rsplit("}", 1)
    assert name.strip() == "infra"
    environment = json.loads(told + "}")
    assert environment["MODELYARD_GPUS"] == "0,1"
    assert environment["HOME"] == "/modelyard/home"
