"""The parameters of a flow, as ``run FLOW --help`` lists them."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from flows import catalogue
from infra.errors import NotFoundError
from modelyard import flow_help, main, output
from tasks import flow_requests
from tests.flows.test_forms import GOLDEN
from tests.test_light_imports import imported_by


def test_each_flow_has_its_own_request() -> None:
    assert flow_requests.names() == catalogue.names()
    for flow in catalogue.load_all():
        assert flow_requests.find(str(flow.name)) is flow.model


@pytest.mark.parametrize("flow", flow_requests.names())
def test_it_has_every_field_of_the_form(flow: str) -> None:
    form = json.loads((GOLDEN / f"{flow}.json").read_text())
    found = flow_help.parameters(flow)

    assert list(dict.fromkeys(one.name.partition(".")[0] for one in found)) == sorted(
        form["properties"], key=lambda name: form["properties"][name]["position"]
    )
    assert all(one.description for one in found)
    assert not any("$" in one.type or not one.type for one in found)


def test_types_defaults_and_groups() -> None:
    found = {one.name: one for one in flow_help.parameters("train")}

    assert (found["experiment"].type, found["experiment"].default) == ("string", "Default")
    assert found["algorithm.provided"].type == "gradient-boosting | image-classifier"
    assert found["overwrite"].type == "boolean"
    assert found["max_minutes"].type == "number"
    assert found["datasets"].type == "list of {name, uri}"
    assert found["hyperparameters"].type == "mapping"
    assert found["resources.nodes"].default == 1
    assert found["resources.nodes"].limits == "1 to 256"
    assert found["resources.mounts"].limits == "at most 20 items"
    assert found["max_minutes"].limits == "above 0"
    assert found["name"].limits == ""


@pytest.mark.parametrize(
    ("arguments", "flow"),
    [
        (["run", "train", "--help"], "train"), (["call", "tune", "-p", "a=1", "--help"], "tune"),
        (["run", "--help"], None), (["run", "train"], None), (["run"], None),
        (["runs", "train", "--help"], None), (["run", "--watch", "--help"], None),
    ],
)  # fmt: skip
def test_which_command_lines_ask_for_it(arguments: list[str], flow: str | None) -> None:
    assert flow_help.flow_of(arguments) == flow


def test_an_unknown_flow_is_an_error() -> None:
    with pytest.raises(NotFoundError, match="nowhere"):
        flow_help.parameters("nowhere")


def ask(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["modelyard", *arguments])
    with pytest.raises(SystemExit) as raised:
        main.main()
    code: Any = raised.value.code
    return int(code)


def test_it_fits_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(output.console, "_width", 80)
    assert ask(monkeypatch, "run", "train", "--help") == 0

    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Usage: modelyard run train [OPTIONS]"
    assert "  algorithm.uri  string" in lines
    assert '  experiment  string, default "Default"' in lines
    assert max(map(len, lines)) <= 80


def test_programs_get_a_list(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(monkeypatch, "call", "pipeline-artifacts-cleanup", "--help", "--json") == 0

    found = json.loads(capsys.readouterr().out)
    assert list(found[0]) == ["name", "type", "limits", "required", "default", "description"]
    assert ask(monkeypatch, "run", "nowhere", "--help", "--json") == 1
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "NotFound"


def test_it_imports_no_prefect() -> None:
    code = "from modelyard import flow_help; flow_help.show('run', 'train', as_json=False)"

    assert imported_by(code, {"prefect", "mlflow", "sqlalchemy", "optuna"}) == set()
