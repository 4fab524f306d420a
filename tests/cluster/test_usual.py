"""The whole cluster over HTTP, with the nodes and the image that most tests use."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from kubernetes import client, config

from tests.cluster.cluster import Cluster
from tests.cluster.small import cluster, needs_root, run
from tests.cluster.usual import FLOWS, GPU, flows_image, nodes
from tests.processes import eventually

pytestmark = [needs_root, pytest.mark.soak]


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
    with Cluster(tmp_path, nodes=nodes):
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


_GANG = """
import os, torch, torch.distributed as gang
rank = int(os.environ["JOB_COMPLETION_INDEX"])
gang.init_process_group("gloo", "tcp://gang-0.gang:" + os.environ["PORT"], rank=rank, world_size=2)
number = torch.ones(1) * (1 + rank)
gang.all_reduce(number)
print(number.item())
gang.destroy_process_group()  # else its threads may outlive the interpreter, which ends in SIGABRT
"""


def test_the_pods_of_an_indexed_job_train_together() -> None:
    pytest.importorskip("torch")
    with socket.create_server(("127.0.0.1", 0)) as taken:  # pods share the machine's ports
        port = taken.getsockname()[1]

    async def test() -> None:
        async with cluster(images={FLOWS: flows_image()}) as small:
            service = {"clusterIP": "None", "selector": {"job-name": "gang"}}
            small.store.create("Service", {
                "metadata": {"name": "gang"},
                "spec": {**service, "publishNotReadyAddresses": True},
            })  # fmt: skip
            container = {
                "name": "run", "image": FLOWS, "command": ["python", "-P", "-c", _GANG],
                "env": [{"name": "PORT", "value": str(port)}],
            }  # fmt: skip
            small.job(
                "gang", completionMode="Indexed", completions=2, parallelism=2,
                pod={"subdomain": "gang", "containers": [container]},
            )  # fmt: skip
            held = await small.until(
                lambda: {"Complete", "Failed"} & set(small.conditions("gang", "Job")), 50
            )
            said = [await small.said(pod["metadata"]["name"]) for pod in small.pods_of("gang")]

            assert held == {"Complete"}, said
            assert said == ["3.0\n"] * 2

    run(test)
