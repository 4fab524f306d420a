from __future__ import annotations

import dataclasses
import json
import os
import sys
from pathlib import Path

import pytest

from infra.errors import BadInputError
from infra.workloads import process_group
from infra.workloads.process_group import ProcessSpec
from tasks.resources import Resources
from tasks.training import nodes, training_steps

pytestmark = pytest.mark.integration

_COMMAND = ["/python", "train.py", "--a", "1"]


def _processes(*gpus: str, **asked: object) -> list[ProcessSpec]:
    resources = Resources(**asked)
    rendezvous = nodes.local_rendezvous(resources)
    return nodes.plan_processes(
        _COMMAND, {"MINE": "1"}, resources, rendezvous, gpus=gpus, join_seconds=7
    )


def test_one_process_is_told_of_nobody() -> None:
    (process,) = _processes()

    assert process == ProcessSpec(
        _COMMAND, {"MINE": "1", "CUDA_VISIBLE_DEVICES": "", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    )


def test_it_sees_its_gpus() -> None:
    (process,) = _processes("0", "2")

    assert process.env["CUDA_VISIBLE_DEVICES"] == "0,2"


def test_each_node_sees_its_share() -> None:
    found = _processes("0", "1", "2", "3", nodes=2)

    assert [process.env["CUDA_VISIBLE_DEVICES"] for process in found] == ["0,1", "2,3"]


def test_torchrun_on_each_node() -> None:
    found = _processes(nodes=2, processes_per_node=3, torchrun=True)

    assert [process.name for process in found] == ["node 0", "node 1"]
    for rank, process in enumerate(found):
        assert process.command[:3] == ["/python", "-m", "torch.distributed.run"]
        assert process.command[-3:] == ["train.py", "--a", "1"]
        options = dict(one.split("=", 1) for one in process.command[3:-3])
        assert options["--nnodes"] == "2"
        assert options["--nproc-per-node"] == "3"
        assert options["--node-rank"] == str(rank)
        assert options["--rdzv-conf"] == "timeout=7"
        assert options["--max-restarts"] == "0"
    ports = {one for process in found for one in process.command if "--master-port" in one}
    assert len(ports) == 1


def test_torchrun_on_one_node_has_no_name() -> None:
    (process,) = _processes(torchrun=True)

    assert process.name == ""
    assert "torch.distributed.run" in process.command


def test_ranks_without_torchrun() -> None:
    found = _processes(nodes=2, processes_per_node=2)

    told = [
        [process.env[name] for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE",
                                        "NODE_RANK", "MASTER_ADDR")]
        for process in found
    ]  # fmt: skip
    assert told == [
        ["0", "4", "0", "2", "0", "127.0.0.1"],
        ["1", "4", "1", "2", "0", "127.0.0.1"],
        ["2", "4", "0", "2", "1", "127.0.0.1"],
        ["3", "4", "1", "2", "1", "127.0.0.1"],
    ]
    assert len({process.env["MASTER_PORT"] for process in found}) == 1
    assert [process.name for process in found] == [
        "node 0 process 0", "node 0 process 1", "node 1 process 0", "node 1 process 1",
    ]  # fmt: skip


def test_tf_config_as_tensorflow_reads_it() -> None:
    found = [json.loads(process.env["TF_CONFIG"]) for process in _processes(nodes=3)]

    assert [one["task"] for one in found] == [{"type": "worker", "index": n} for n in range(3)]
    workers = found[0]["cluster"]["worker"]
    assert len(set(workers)) == 3
    assert all(one["cluster"] == {"worker": workers} for one in found)
    hosts, ports = zip(*(worker.split(":") for worker in workers), strict=True)
    assert set(hosts) == {"127.0.0.1"}
    assert all(1024 <= int(port) < 65536 for port in ports)


def test_the_ports_are_different() -> None:
    found = _processes(nodes=4)
    workers = json.loads(found[0].env["TF_CONFIG"])["cluster"]["worker"]

    assert found[0].env["MASTER_PORT"] not in {worker.split(":")[1] for worker in workers}


def test_torchrun_needs_pytorch(tmp_path: Path) -> None:
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "$@"\n')
    bare.chmod(0o755)

    with pytest.raises(BadInputError) as raised:
        nodes.check_torchrun(str(bare))

    assert raised.value.code == "TorchMissing"


def test_a_node_that_never_joins_is_named(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    (tmp_path / "train.py").write_text("")
    command = [sys.executable, str(tmp_path / "train.py")]
    asked = Resources(nodes=2, torchrun=True)
    first, second = nodes.plan_processes(
        command, dict(os.environ), asked, nodes.local_rendezvous(asked), gpus=(), join_seconds=2
    )

    ended = process_group.run(
        [first, dataclasses.replace(second, command=["sleep", "600"])],
        cwd=tmp_path, log=tmp_path / "log", on_line=lambda *_: None, deadline=None,
        stop_requested=lambda: False, grace=0.3,
    )  # fmt: skip

    problem = training_steps.script_error(ended, "log")
    assert problem is not None
    assert problem.code == "NodeNeverJoined"
    assert "node 1 printed nothing" in problem.message
