"""``modelyard pipeline graph``: what it draws, and where it says that a page is."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from infra.errors import NotFoundError
from infra.home import Home
from modelyard import main
from modelyard.commands import pipeline_graph as command
from registry.pipelines.pipeline_nodes import PipelineNode
from registry.runs.run_views import RunDetailView
from tests.pipelines import corpus
from tests.pipelines.drawing.boxes import node

RUN = "11111111-2222-3333-4444-555555555555"
Do = Callable[..., tuple[int, Any]]


@pytest.fixture
def do(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Do:
    def run(*arguments: str) -> tuple[int, Any]:
        monkeypatch.setattr(sys, "argv", ["modelyard", "pipeline", "graph", *arguments])
        with pytest.raises(SystemExit) as raised:
            main.main()
        assert isinstance(raised.value.code, int)
        told = capsys.readouterr().out
        return raised.value.code, json.loads(told) if "--json" in arguments else told

    return run


@pytest.fixture
def ran(home: Home, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A run that is known, and the stack that knows it."""
    rows: list[PipelineNode] = [node("add", began=1.0, ended=2.0), node("add-2", "FAILED")]
    found = {"id": RUN, "name": "mine", "flow": "pipeline-run", "state": "FAIL PIPELINE RUN"}

    def show(key: str) -> RunDetailView:
        if key not in {RUN, "mine"}:
            raise NotFoundError(f"There is no run {key!r}.", "modelyard runs list.")
        return RunDetailView.model_construct(is_final=True, **found)

    folder = home.runs / RUN
    folder.mkdir()
    (folder / "pipeline.yaml").write_bytes(corpus.compiled("adding"))

    def find(name: str) -> NoReturn:
        raise NotFoundError(f"There is no pipeline {name!r}.", code="PipelineUnknown")

    monkeypatch.setattr(command, "connected", contextlib.nullcontext)
    monkeypatch.setattr(command.pipelines, "find", find)
    monkeypatch.setattr(command.runs, "show", show)
    monkeypatch.setattr(command.pipeline_nodes, "in_brief", lambda _: rows)
    monkeypatch.setenv("MODELYARD_WEB_URL", "http://127.0.0.1:4300")
    return found


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "loops.yaml"
    path.write_bytes(corpus.compiled("nested_loops"))
    return path


def test_a_file_is_told_as_text(do: Do, file: Path) -> None:
    code, told = do(str(file))

    assert code == 0
    assert "├─ for-loop-1  for each item of tens" in told
    assert "http" not in told


def test_a_file_of_any_name_needs_no_stack(
    do: Do, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("README.md").write_text("a: b: c")
    code, told = do("README.md", "--json")

    assert code == 1
    assert told["error"]["code"] == "PipelineUnreadable"


def test_a_file_is_told_as_data(do: Do, file: Path) -> None:
    code, told = do(str(file), "--json")

    assert code == 0
    assert [one["path"] for one in told["nodes"]] == [
        "for-loop-1", "for-loop-1/for-loop-3", "for-loop-1/for-loop-3/add", "grand-total",
    ]  # fmt: skip
    assert told["edges"][0]["source"] == "for-loop-1"
    assert told["page"] == ""


def test_a_file_is_drawn(do: Do, file: Path, tmp_path: Path) -> None:
    drawn = tmp_path / "out.svg"
    code, told = do(str(file), "-o", str(drawn))

    assert (code, told) == (0, f"Written: {drawn}\n")
    assert drawn.read_text().startswith("<svg ")
    assert [path.name for path in tmp_path.glob(".*")] == []


@pytest.mark.parametrize("key", [RUN, "mine"])
def test_a_run_is_told_with_its_page(do: Do, ran: dict[str, Any], key: str) -> None:
    code, told = do(key)

    assert code == 0
    assert "add  ✓ SUCCEEDED  1.0 s" in told
    assert told.endswith(f"http://127.0.0.1:4300/runs/{RUN}\n")


def test_a_run_is_told_as_data_with_all_its_iterations(
    do: Do, ran: dict[str, Any], home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home.runs / RUN / "pipeline.yaml").write_bytes(corpus.compiled("nested_loops"))
    rows = [node("for-loop-1", kind="loop")]
    rows += [node(f"for-loop-1/{n}", kind="iteration") for n in range(50)]
    monkeypatch.setattr(command.pipeline_nodes, "in_brief", lambda _: rows)
    _, told = do("mine", "--json")

    assert told["flow_run_id"] == RUN
    assert told["state"] == "FAIL PIPELINE RUN"
    assert told["page"] == f"http://127.0.0.1:4300/runs/{RUN}"
    assert len([one for one in told["nodes"] if one["kind"] == "iteration"]) == 50


def test_without_a_page_none_is_told(
    do: Do, ran: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MODELYARD_WEB_URL")

    assert "http" not in do("mine")[1]


def test_what_cannot_be_drawn_is_told(do: Do, ran: dict[str, Any], home: Home) -> None:
    def code(*arguments: str) -> str:
        status, told = do(*arguments, "--json")
        assert status == 1
        return str(told["error"]["code"])

    assert code("another") == "NotFound"
    assert code("gone.yaml") == "PipelineFileMissing"
    assert code("mine", "-o", "/nowhere/x.svg") == "NotWritable"
    assert code("mine", "-o", str(home.root)) == "NotWritable"
    (home.runs / RUN / "pipeline.yaml").unlink()
    assert code("mine") == "GraphMissing"
    ran["flow"] = "train"
    assert code("mine") == "NoPipelineRun"


def test_a_file_that_is_no_pipeline_is_refused(do: Do, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("a: 1")
    code, told = do(str(tmp_path / "x.yaml"), "-o", str(tmp_path / "x.svg"), "--json")

    assert code == 1
    assert told["error"]["code"] == "PipelineFormatUnknown"
    assert not (tmp_path / "x.svg").exists()
