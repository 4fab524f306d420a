"""``modelyard pipeline run`` of what cannot run: an error with its place, and nothing begun."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from flows import submission
from flows.pipeline_run import pipeline_run
from modelyard import main
from modelyard.commands import pipeline as command
from tests.pipelines import corpus
from tests.pipelines.mutating import drop, loaded, set_at

_TASKS = "root/dag/tasks"
_BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9)
)


def changed(name: str, change: Callable[[dict[str, Any]], None]) -> bytes:
    documents = copy.deepcopy(loaded(name))
    change(documents[0])
    return yaml.safe_dump_all(documents).encode()


def zipped(member: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(member, corpus.compiled("adding"))
    return buffer.getvalue()


def circle(spec: dict[str, Any]) -> None:
    spec["root"]["dag"]["tasks"]["add"]["dependentTasks"] = ["add-2"]


_CONDITION = f"{_TASKS}/condition-7/triggerPolicy/condition"
_OUTPUT = "root/dag/outputs/parameters/Output/valueFromParameter"
# What the file is called, what it holds, which arguments are given, the error and what it tells.
_REFUSED: dict[str, tuple[str, Callable[[], bytes], tuple[str, ...], str, str]] = {
    "an empty file": ("p.yaml", lambda: b"", (), "PipelineEmpty", "p.yaml"),
    "another format": (
        "p.yaml", lambda: b"\x89PNG\r\n\x1a\n\x00", (), "PipelineUnreadable", "p.yaml",
    ),
    "another YAML": ("p.yaml", lambda: b"kind: Pod", (), "PipelineFormatUnknown", "Pod"),
    "no zip": ("p.zip", lambda: b"this is no zip", (), "PackageInvalid", "p.zip"),
    "a climbing zip": ("p.zip", lambda: zipped("../p.yaml"), (), "PackageInvalid", "../p.yaml"),
    "a large file": ("p.yaml", lambda: bytes(100 * 2**20), (), "PipelineTooLarge", "MiB"),
    "a bomb": ("p.yaml", _BOMB.encode, (), "PipelineTooComplex", "p.yaml"),
    "no name": (
        "p.yaml", lambda: changed("adding", drop("pipelineInfo/name")), (),
        "PipelineNameMissing", "pipelineInfo.name",
    ),
    "an unknown schema": (
        "p.yaml", lambda: changed("adding", set_at("schemaVersion", "3.0.0")), (),
        "PipelineSchemaUnknown", "3.0.0",
    ),
    "a circle": (
        "p.yaml", lambda: changed("adding", circle), ("-p", "a=1"),
        "PipelineInvalid", "root.dag.tasks: They wait for each other: add → add-2 → add",
    ),
    "a missing component": (
        "p.yaml", lambda: changed("adding", drop("components/comp-add")), ("-p", "a=1"),
        "PipelineInvalid", "root.dag.tasks.add.componentRef.name",
    ),
    "an undefined output": (
        "p.yaml", lambda: changed("adding", set_at(f"{_OUTPUT}/outputParameterKey", "x")),
        ("-p", "a=1"), "PipelineInvalid", "root.dag.outputs.parameters.Output.valueFromParameter",
    ),
    "an expression that does not parse": (
        "p.yaml", lambda: changed("conditions", set_at(_CONDITION, "1 ==")), (),
        "PipelineInvalid", "root.dag.tasks.condition-7.triggerPolicy.condition",
    ),
    "a missing parameter": (
        "p.yaml", lambda: corpus.compiled("adding"), (), "ArgumentsInvalid", "a: ",
    ),
    "an unknown parameter": (
        "p.yaml", lambda: corpus.compiled("adding"), ("-p", "a=1", "-p", "z=1"),
        "ArgumentsInvalid", "z: The pipeline has no such input.",
    ),
    "a wrong type": (
        "p.yaml", lambda: corpus.compiled("adding"), ("-p", "a=many"), "ArgumentsInvalid",
        "a: ",
    ),
}  # fmt: skip


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was begun."""
    calls: list[Any] = []
    monkeypatch.setattr(submission, "start", lambda *told: calls.append(told))
    stand_in = SimpleNamespace(
        name=pipeline_run.name, spec=pipeline_run.spec, outcome=calls.append
    )
    monkeypatch.setattr(command.pipeline_flow, "pipeline_run", stand_in)
    monkeypatch.setattr(command.work_pools, "is_remote", lambda _: False)
    monkeypatch.setattr(command, "watch", lambda *_, **__: None)
    monkeypatch.setattr(command, "connected", lambda **_: contextlib.nullcontext())
    return calls


@pytest.fixture
def without_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run in this process gets no stack, and needs none until it begins."""
    monkeypatch.setattr(command.flows_connection, "connected", contextlib.nullcontext)


_WHERE = pytest.mark.parametrize("where", [(), ("--local",)], ids=["pool", "local"])


@pytest.mark.usefixtures("without_stack")
@_WHERE
def test_what_can_run_begins(
    where: tuple[str, ...], begun: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "p.yaml"
    path.write_bytes(corpus.compiled("adding"))
    asked = ["modelyard", "pipeline", "run", str(path), "-p", "a=1", *where, "--json"]
    monkeypatch.setattr(sys, "argv", asked)

    with pytest.raises((SystemExit, AttributeError, TypeError)):  # it gets no run to wait for
        main.main()
    assert len(begun) == 1


def test_what_runs_in_this_process_is_always_waited_for(
    begun: list[Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "p.yaml"
    path.write_bytes(corpus.compiled("adding"))
    asked = ["modelyard", "pipeline", "run", str(path), "--local", "--no-watch", "--json"]
    monkeypatch.setattr(sys, "argv", asked)

    with pytest.raises(SystemExit):
        main.main()

    assert json.loads(capsys.readouterr().out)["error"]["code"] == "WatchUnused"
    assert begun == []


@pytest.mark.usefixtures("without_stack")
@_WHERE
@pytest.mark.parametrize(
    ("given", "resources"),
    [
        ((), None),
        (("--allow-cpu",), {"allow_cpu": True}),
        (("--allow-cpu", "--instance-type", "gpu.t4"),
         {"instance_type": "gpu.t4", "allow_cpu": True}),
    ],
)  # fmt: skip
def test_its_machines_are_resources_of_the_run(
    where: tuple[str, ...], given: tuple[str, ...], resources: dict[str, Any] | None,
    begun: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    path = tmp_path / "p.yaml"
    path.write_bytes(corpus.compiled("adding"))
    asked = ["modelyard", "pipeline", "run", str(path), "-p", "a=1", *where, *given]
    monkeypatch.setattr(sys, "argv", asked)

    with pytest.raises((SystemExit, AttributeError, TypeError)):  # it gets no run to wait for
        main.main()

    (told,) = begun
    assert (told if where else told[1]).get("resources") == resources


def test_a_file_is_uploaded_where_the_pools_machines_do_not_see_it(
    begun: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "p.yaml"
    path.write_bytes(corpus.compiled("adding"))
    uploaded: list[Path] = []
    monkeypatch.setattr(command.work_pools, "is_remote", lambda _: True)
    monkeypatch.setattr(
        command.pipelines,
        "upload",
        lambda file: uploaded.append(file) or SimpleNamespace(name="adding"),
    )
    found = SimpleNamespace(reference="adding:3")
    monkeypatch.setattr(command.rows, "find", lambda name: found)
    monkeypatch.setattr(sys, "argv", ["modelyard", "pipeline", "run", str(path), "-p", "a=1"])

    with pytest.raises((SystemExit, AttributeError, TypeError)):
        main.main()

    assert uploaded == [path]
    (told,) = begun
    assert told[1]["pipeline"] == "adding:3"


@_WHERE
@pytest.mark.parametrize("case", _REFUSED)
def test_it_is_refused(
    case: str,
    where: tuple[str, ...],
    begun: list[Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    name, content, given, code, told = _REFUSED[case]
    path = tmp_path / name
    path.write_bytes(content())
    asked = ["modelyard", "pipeline", "run", str(path), *given, *where, "--json"]
    monkeypatch.setattr(sys, "argv", asked)

    with pytest.raises(SystemExit) as raised:
        main.main()

    error = json.loads(capsys.readouterr().out)["error"]
    assert raised.value.code not in {0, None}
    assert error["code"] == code
    assert told in error["message"]
    assert error["hint"] or code in {"PipelineInvalid", "ArgumentsInvalid"}
    assert begun == []
    assert list(tmp_path.iterdir()) == [path]
