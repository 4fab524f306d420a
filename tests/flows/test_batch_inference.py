"""What a batch inference does before and after it predicts."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest

from flows import batch_inference as flow
from flows import batch_inference_pods, batch_inference_server
from infra.errors import ConflictError, RunFailedError
from infra.home import Home
from infra.settings import Settings
from registry.tracking import Tracked
from serving import hub_cache
from serving.model_servers import ServerKind
from tasks.batch_inference import input_files
from tasks.batch_inference.inference_request import BatchInference
from tasks.batch_inference.part_results import PartFiles, PartWriter
from tasks.batch_inference.planning import Plan, PlannedFile
from tasks.batch_inference.predicting import Folders
from tasks.batch_inference.splitting import FilePart
from tests.tasks.batch_inference.remote_input import remote_folder


@pytest.mark.parametrize("way", ["in place", "fetched", "by pods"])
def test_files_that_come_before_a_retry_are_left_out_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    source = tmp_path / "in"
    source.mkdir()
    (source / "a.jsonl").write_text("{}\n")
    if way == "fetched":
        monkeypatch.setattr(input_files.storage, "store", remote_folder)
    folders = Folders(tmp_path / "run")
    folders.model.mkdir(parents=True)
    warned: list[str] = []
    logger = SimpleNamespace(warning=warned.append, info=lambda *_: None)
    (tmp_path / "nas").mkdir()
    monkeypatch.setenv("MODELYARD_NAS", json.dumps({"n": str(tmp_path / "nas")}))
    context: Any = SimpleNamespace(
        settings=Settings(pipeline_staging_uri="nas://n:/staging"), flow_run_id="run",
        logger=logger,
        raise_if_ended=lambda: None,
    )  # fmt: skip
    request = BatchInference(model="m/1", input_uri=str(source), output_uri=str(tmp_path / "out"))
    model: Any = SimpleNamespace(framework="scikit-learn", source_uri="file:///model")

    def prepare() -> Plan:
        if way == "by pods":
            return batch_inference_pods.prepare(context, request, folders)
        _, plan = flow._prepare.fn(context, request, model, folders)
        return plan

    first = prepare()
    for number in range(12):
        (source / f"b{number:02}.jsonl").write_text("{}\n")
    (source / "a.json").write_text("{}\n")  # whose results would have the name of another's
    again = prepare()

    assert [file.name for file in first.files] == ["a.jsonl"]
    assert again == first
    (told,) = warned
    assert told.startswith(
        "13 files have come to the input since this run began, and will not be predicted: a.json, "
        "b00.jsonl, b01.jsonl, b02.jsonl, b03.jsonl, b04.jsonl, b05.jsonl, b06.jsonl, b07.jsonl, "
        "b08.jsonl, ..."
    )
    staged = [one.name for one in folders.staged.iterdir()] if folders.staged.exists() else []
    assert staged == (["a.jsonl"] if way == "fetched" else [])


class _BegunError(Exception):
    pass


@pytest.mark.parametrize(("most", "begins"), [(1, False), (2, True)])
def test_a_retry_that_can_only_fail_again_begins_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int, begins: bool
) -> None:
    def begin(*_: Any) -> None:
        raise _BegunError

    monkeypatch.setattr(flow, "_environment", begin)
    plan = Plan([PlannedFile("a", 9, 0, 0, [FilePart(0, 1, 0, 3)] * 2)])
    folders = Folders(tmp_path)
    folders.parts.mkdir()
    with PartWriter(PartFiles(folders.parts, 0)) as writer:
        writer.begin(FilePart(0, 1, 0, 3))
        writer.write([0], None, {"y": np.array([1])})
        for row in (1, 2):
            writer.fail(row, None, "wrong")
        writer.commit({})
    context = SimpleNamespace(
        attempt=2, settings=Settings(), home=SimpleNamespace(overlays=tmp_path / "overlays")
    )
    given: Any = (context, BatchInference(model="m/1", max_failed=most), None, tmp_path, plan)

    with pytest.raises(_BegunError if begins else RunFailedError) as caught:
        flow._predict.fn(*given, folders, None, None)

    assert begins or caught.value.code == "TooManyRecordsFailed"


@pytest.mark.parametrize("fails", [False, True])
def test_only_what_was_published_is_known_as_a_runs_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, fails: bool
) -> None:
    folders = Folders(tmp_path)
    folders.parts.mkdir()
    with PartWriter(PartFiles(folders.parts, 0)) as writer:
        writer.begin(FilePart(0, 1, 0, 1))
        writer.write([0], None, {"y": np.array([1])})
        writer.commit({})
    plan = Plan([PlannedFile("a.jsonl", 9, 0, 0, [FilePart(0, 1, 0, 1)])])
    output = tmp_path / "out"
    if fails:
        output.mkdir()
        (output / "a.jsonl").write_text("mine")
    recorded: list[tuple[str, str]] = []
    monkeypatch.setattr(
        flow.publish_targets, "record", lambda run, place: recorded.append((run, place))
    )
    context: Any = SimpleNamespace(flow_run_id="run", raise_if_ended=lambda: None)
    model: Any = SimpleNamespace(uri="models:/m/1")
    given: Any = {"model": "m/1", "input_uri": str(tmp_path / "in"), "output_uri": str(output)}

    def publish(**more: Any) -> None:
        request = BatchInference(**given, **more)
        flow._publish.fn(context, request, model, plan, folders, Tracked("m", "url", {}))

    if fails:
        with pytest.raises(ConflictError) as refused:
            publish()
        assert refused.value.code == "OutputFilesExist"
        assert recorded == []
        publish(overwrite=True)  # at its retry, nothing is predicted again
    else:
        publish()

    assert json.loads((output / "a.jsonl").read_text()) == {"row": 0, "y": 1}
    assert recorded == [("m", str(output))]


def test_downloads_from_the_hub_are_kept_while_a_server_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path / "home")
    repository = home.hub / "hub" / "models--org--m"
    repository.mkdir(parents=True)
    workload = SimpleNamespace(image="image", folder=tmp_path / "server")
    for name, value in {
        "kind_of": lambda *_: ServerKind.VLLM,
        "_planned": lambda *_: (workload, "served"),
        "DockerBackend": MagicMock(),
        "ServerContainer": MagicMock(),
    }.items():
        monkeypatch.setattr(batch_inference_server, name, value)
    context: Any = SimpleNamespace(
        logger=MagicMock(), settings=Settings(), home=home, is_over=lambda: False
    )
    model: Any = SimpleNamespace(source_uri=None, parameters={"model_id": "org/m"})
    folders = Folders(tmp_path)

    asked = batch_inference_server.asked(context, MagicMock(), model, folders, (), print)
    with asked as served:
        assert served == "served"
        assert hub_cache.prune(home.hub, most=0) == []

    assert hub_cache.prune(home.hub, most=0) == ["models--org--m"]
