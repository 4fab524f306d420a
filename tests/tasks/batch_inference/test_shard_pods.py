"""Pods that are killed at random, and pods that fail."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from infra import storage
from infra.errors import ModelyardError, RunFailedError
from infra.instance_types import InstanceType
from infra.workloads.base import Backend, Log, Workload
from infra.workloads.exit_status import ExitStatus
from infra.workloads.redaction import redactor
from registry.models.models import ResolvedVersion
from serving.model_servers import ServerKind
from tasks.batch_inference import input_files, output_files, planning, shard_pods, splitting
from tasks.batch_inference.inference_request import BatchInference
from tasks.batch_inference.pod import SERVER_FAILED, PodSpec
from tasks.batch_inference.pod_resources import PodResources
from tasks.batch_inference.pod_server import PodServer
from tasks.batch_inference.predicting import Folders
from tasks.batch_inference.shard_pods import PartCollector, ShardPods
from tasks.batch_inference.staged_parts import StagedParts

SEEDS = int(os.environ.get("MODELYARD_SEEDS", "1"))
RECORDS = 3000
MODEL = """
import time
def load(model_dir, parameters):
    if "{fault}" == "load":
        raise RuntimeError("no weights")
def predict(inputs, model):
    time.sleep(0.02)
    if (inputs["x"] == 1313).any():
        raise ValueError("unlucky")
    return {{"prediction": 2 * inputs["x"]}}
"""
# A pod whose model is a folder of this machine, and whose input is not.
POD = """
import shutil, sys
from pathlib import Path
from registry.models import models
from registry.models.models import ResolvedVersion
from tasks.batch_inference import part_input, pod
from tests.tasks.batch_inference.remote_input import remote_folder
folder = sys.argv[2]
models.resolve = lambda uri: ResolvedVersion(
    "m", 1, uri, folder, "custom", "", {}, "", None, None, True
)
models.fetch = lambda _, destination: shutil.copytree(folder, destination)
part_input.storage.store = remote_folder
sys.exit(pod.main(Path(sys.argv[1])))
"""


class LocalPods(Backend):
    """Runs each pod as a process, and kills some."""

    def __init__(self, model: Path, chance: random.Random, most_kills: int) -> None:
        self.model = model
        self.chance = chance
        self.kills_left = most_kills
        self.started = 0

    def check(self, workload: Workload) -> None:
        """All run."""

    def run(self, workload: Workload, log: Log, cancelled: threading.Event) -> ExitStatus:
        self.started += 1
        process = subprocess.Popen(
            [sys.executable, "-c", POD, workload.command[-1], str(self.model)],
            cwd=workload.folder,
            env={**os.environ, **workload.environment, "PYTHONPATH": str(Path.cwd())},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip
        if self.kills_left > 0:
            self.kills_left -= 1
            threading.Timer(self.chance.uniform(0.5, 3), process.kill).start()
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                log(line.rstrip("\n"))
        return ExitStatus(process.wait())


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(splitting, "_BLOCK", 512)
    for name in ("in", "model", "run", "run/parts"):
        (tmp_path / name).mkdir()
    lines = "".join(json.dumps({"x": at}) + "\n" for at in range(RECORDS))
    (tmp_path / "in" / "a.jsonl").write_text(lines)
    files = input_files.select(storage.store(str(tmp_path / "in")), (), ())
    return planning.make(tmp_path / "in", files, "jsonl", lambda: None, 2000)


def _pods(
    folder: Path, plan: planning.Plan, backend: LocalPods, fault: str = "", **fields: Any
) -> ShardPods:
    (folder / "model" / "predictor.py").write_text(MODEL.format(fault=fault))
    request = BatchInference(
        model="m/1", input_uri=str(folder / "in"), output_uri=str(folder / "out"), pods=2,
        batch_size=20, **fields,
    )  # fmt: skip
    model = ResolvedVersion("m", 1, "models:/m/1", "", "custom", "", {}, "", None, None, True)
    folders = Folders(folder / "run")
    collector = PartCollector(StagedParts(str(folder / "area")), folders.parts)
    pods = shard_pods.plan_pods(
        request, model, plan, folders, str(folder / "area"), "image",
        InstanceType(cpu=4, memory_gib=8), PodResources(1.0, 2**30),
    )  # fmt: skip
    return ShardPods(backend, pods, collector, lambda _: None, "the log")


@pytest.mark.integration
@pytest.mark.parametrize("seed", range(SEEDS))
def test_every_record_is_once_in_the_output(tmp_path: Path, made: Any, seed: int) -> None:
    backend = LocalPods(tmp_path / "model", random.Random(seed), most_kills=4)

    _pods(tmp_path, made, backend).run(lambda: False, lambda: None)

    PartCollector(StagedParts(str(tmp_path / "area")), tmp_path / "run" / "parts")
    (tmp_path / "out").mkdir()
    manifest = output_files.put_together(
        tmp_path / "out", made, tmp_path / "run" / "parts", "jsonl", {}, lambda: None
    ).manifest
    found = [json.loads(line) for line in (tmp_path / "out" / "a.jsonl").open()]
    assert backend.kills_left == 0
    assert (manifest["rows"], manifest["failed"]) == (RECORDS, 1)
    assert [one["row"] for one in found] == [at for at in range(RECORDS) if at != 1313]
    assert all(one["prediction"] == 2 * one["row"] for one in found)


@pytest.mark.integration
def test_a_pod_that_fails_by_its_own_words_is_not_started_again(tmp_path: Path, made: Any) -> None:
    backend = LocalPods(tmp_path / "model", random.Random(), most_kills=0)

    with pytest.raises(RunFailedError, match="no weights") as raised:
        _pods(tmp_path, made, backend, "load").run(lambda: False, lambda: None)

    assert raised.value.code == "BatchInferenceFailed"
    assert backend.started == 2


@pytest.mark.integration
def test_a_pod_of_which_too_many_records_fail_is_not_started_again(
    tmp_path: Path, made: Any
) -> None:
    backend = LocalPods(tmp_path / "model", random.Random(), most_kills=0)

    with pytest.raises(RunFailedError, match=r"1 records failed, more than max_failed") as raised:
        _pods(tmp_path, made, backend, max_failed=0).run(lambda: False, lambda: None)

    assert raised.value.code == "TooManyRecordsFailed"
    assert backend.started == 2


def test_a_pod_that_is_lost_at_one_part_ends_the_run(tmp_path: Path, made: Any) -> None:
    class Lost(LocalPods):
        def run(self, workload: Workload, log: Log, cancelled: threading.Event) -> ExitStatus:
            self.started += 1
            return ExitStatus(-9, "It was evicted.")

    backend = Lost(tmp_path / "model", random.Random(), 0)
    with pytest.raises(RunFailedError, match=r"was lost 6 times at the same part: It was evicted"):
        _pods(tmp_path, made, backend).run(lambda: False, lambda: None)
    assert 6 <= backend.started <= 12


def test_an_error_of_the_cluster_ends_the_run(tmp_path: Path, made: Any) -> None:
    class Refused(LocalPods):
        def run(self, workload: Workload, log: Log, cancelled: threading.Event) -> ExitStatus:
            raise ModelyardError("The image is not there.", "Name another.")

    with pytest.raises(ModelyardError, match="The image is not there"):
        _pods(tmp_path, made, Refused(tmp_path, random.Random(), 0)).run(
            lambda: False, lambda: None
        )


def test_a_server_that_fails_has_its_last_lines_in_the_error_without_secrets(
    tmp_path: Path, made: Any
) -> None:
    lines: list[str] = []

    class Failed(LocalPods):
        def run(self, workload: Workload, log: Log, cancelled: threading.Event) -> ExitStatus:
            for line in ["server: asked with open-sesame", "server: no such backend", "It ended."]:
                log(line)
            return ExitStatus(SERVER_FAILED, "exit status 5")

    pods = _pods(tmp_path, made, Failed(tmp_path, random.Random(), 0))
    failing = ShardPods(
        Failed(tmp_path, random.Random(), 0), [*pods._pods.values()], pods._collector,
        lines.append, "the log", redactor(["open-sesame"]),
    )  # fmt: skip
    with pytest.raises(RunFailedError) as raised:
        failing.run(lambda: False, lambda: None)

    assert raised.value.message == (
        "The batch inference failed: It ended.\nThe server printed:\nasked with ***\n"
        "no such backend"
    )
    assert "open-sesame" not in "".join(lines)


def test_a_pod_with_a_server_gives_it_its_gpus_and_most_of_its_memory(
    tmp_path: Path, made: Any
) -> None:
    request = BatchInference(
        model="m/1", input_uri=str(tmp_path / "in"), output_uri=str(tmp_path / "out"), pods=2
    )
    model = ResolvedVersion("m", 1, "models:/m/1", "", "onnx-triton", "", {}, "", None, None, True)
    server = PodServer(ServerKind.TRITON, "triton:1", Path("/modelyard/server"), 1, 60)
    (pod, _) = shard_pods.plan_pods(
        request, model, made, Folders(tmp_path / "run"), str(tmp_path / "area"), "image",
        InstanceType(cpu=8, memory_gib=32, gpus=2), PodResources(3.75, 15 * 2**30, 1),
        server=server,
    )  # fmt: skip

    sidecar = pod.workload.sidecar
    assert sidecar is not None
    assert pod.workload.resources.accelerators == 0
    assert pod.workload.environment["NVIDIA_VISIBLE_DEVICES"] == "void"
    assert (sidecar.image, sidecar.resources.accelerators) == ("triton:1", 1)
    assert pod.workload.resources.cpu + sidecar.resources.cpu == 3.75
    assert pod.workload.resources.memory + sidecar.resources.memory == 15 * 2**30
    assert pod.workload.resources.memory < 2 * 2**30
    spec = PodSpec.read(pod.workload.folder / "spec.json")
    assert (spec.started, spec.has_gpus) == (server, False)
