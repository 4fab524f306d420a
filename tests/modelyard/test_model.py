"""``modelyard model``: what each verb asks of the registry."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from modelyard import main
from modelyard.api import models as api
from modelyard.commands import model as command
from registry import deletion
from registry.models import (
    model_aliases,
    model_creation,
    model_lineage,
    model_updates,
    models,
)
from registry.models.model_views import ModelVersionView, ModelView
from registry.models.models import ServingSpec

Do = Callable[..., tuple[int, Any]]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What the registry was asked, in order; it answers with a small mapping."""
    calls: list[tuple[Any, ...]] = []

    def record(verb: str) -> Callable[..., dict[str, Any]]:
        def asked(*args: Any, **kwargs: Any) -> dict[str, Any]:
            calls.append((verb, *args, *kwargs.values()))
            return {"did": verb}

        return asked

    for module, verbs in (
        (models, ("create", "show", "list_all")),
        (model_creation, ("from_run",)),
        (model_lineage, ("show",)),
        (model_updates, ("update",)),
        (model_aliases, ("point", "drop", "moves", "at")),
        (deletion, ("delete",)),
    ):
        for verb in verbs:
            monkeypatch.setattr(module, verb, record(verb))
    for module in (command, api):
        monkeypatch.setattr(module, "connected", contextlib.nullcontext)
    return calls


@pytest.fixture
def do(
    asked: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Do:
    def run(*arguments: str) -> tuple[int, Any]:
        monkeypatch.setattr(sys, "argv", ["modelyard", "model", *arguments, "--json"])
        with pytest.raises(SystemExit) as raised:
            main.main()
        assert isinstance(raised.value.code, int)
        out = capsys.readouterr().out
        assert out.count("\n") == 1
        return raised.value.code, json.loads(out)

    return run


NOTHING = ServingSpec("", "", {})


@pytest.mark.parametrize(
    ("arguments", "calls"),
    [
        (["create", "--run", "r"], [("from_run", "r", NOTHING, "", "", None)]),
        (["create", "--run", "r", "--trial", "0"], [("from_run", "r", NOTHING, "", "", 0)]),
        (
            ["create", "m", "--run", "r", "--framework", "onnx", "--framework-version", "1.2",
             "--description", "d", "-p", "a=1", "-p", "b.c=x", "-p", "b=true"],
            [
                ("from_run", "r", ServingSpec("onnx", "1.2", {"a": 1, "b.c": "x", "b": True}),
                 "m", "d", None),
            ],
        ),
        (["create", "m", "--uri", "/x"], [("create", "m", NOTHING, "", "/x")]),
        (["create", "m", "--uri", "s3://b/k"], [("create", "m", NOTHING, "", "s3://b/k")]),
        (
            ["create", "m", "--framework", "Hugging Face", "-p", "model_id=a/b"],
            [("create", "m", ServingSpec("Hugging Face", "", {"model_id": "a/b"}), "", "")],
        ),
        (["list"], [("list_all",)]),
        (["show", "m"], [("show", "m")]),
        (["update", "m", "--name", "n"], [("update", "m", None, None, None, "n"), ("show", "n")]),
        (
            ["update", "m", "--description", ""],
            [("update", "m", None, None, "", None), ("show", "m")],
        ),
        (
            ["update", "m", "--version", "2", "--framework", "onnx", "--description", "d",
             "--name", "n"],
            [("update", "m", 2, ServingSpec("onnx", "", {}), "d", "n"), ("show", "n")],
        ),
        (["alias", "m", "champion", "3"], [("point", "m", "champion", 3, "")]),
        (
            ["alias", "m", "champion", "3", "--reason", "better"],
            [("point", "m", "champion", 3, "better")],
        ),
        (["unalias", "m", "champion"], [("drop", "m", "champion", "")]),
        (["aliases", "m"], [("moves", "m", None)]),
        (["aliases", "m", "--alias", "a"], [("moves", "m", "a")]),
        (
            ["aliases", "m", "--alias", "a", "--at", "2026-01-31T12:00:00+00:00"],
            [("at", "m", "a", datetime(2026, 1, 31, 12, tzinfo=UTC))],
        ),
        (["delete", "m"], [("delete", "model", "m", None)]),
        (["delete", "m", "--version", "2"], [("delete", "model", "m", 2)]),
    ],
)  # fmt: skip
def test_verbs(
    arguments: list[str], calls: list[Any], do: Do, asked: list[tuple[Any, ...]]
) -> None:
    code, answer = do(*arguments)

    assert code == 0
    assert asked == calls
    assert answer == {"did": calls[-1][0]}


def test_relative_files_are_the_caller_s(
    do: Do, asked: list[tuple[Any, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    do("create", "m", "--uri", "files")

    assert asked[0][-1] == str(tmp_path / "files")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["create"], "NameInvalid"),
        (["create", "--uri", "/x"], "NameInvalid"),
        (["create", "m", "--uri", "/x", "--run", "r"], "BadInput"),
        (["create", "m", "-p", "a"], "BadInput"),
        (["create", "m", "--uri", "/x", "--trial", "1"], "TrialUnused"),
        (["create", "--run", "r", "--trial", "-1"], "Usage"),
        (["update", "m"], "BadInput"),
        (["update", "m", "--version", "1"], "BadInput"),
        (["update", "m", "--framework", "onnx"], "BadInput"),
        (["update", "m", "-p", "a=1"], "BadInput"),
        (["aliases", "m", "--at", "2026-01-01"], "BadInput"),
        (["aliases", "m", "--alias", "a", "--at", "yesterday"], "TimeInvalid"),
        (["aliases", "m", "--alias", "a", "--at", "9999-12-31T23:59:59-12:00"], "TimeInvalid"),
        (["alias", "m", "champion", "0"], "Usage"),
        (["alias", "m", "champion", "new"], "Usage"),
        (["delete"], "Usage"),
    ],
)
def test_what_is_refused_asks_nothing(
    arguments: list[str], error: str, do: Do, asked: list[tuple[Any, ...]]
) -> None:
    code, answer = do(*arguments)

    assert code != 0
    assert answer["error"]["code"] == error
    assert asked == []


def test_every_verb_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    _, text = main._VERBS["model"]
    named = {verb.strip(" .") for verb in text.partition(":")[2].split(",")}

    assert named == {
        verb.name or verb.callback.__name__ for verb in command.app.registered_commands
    }  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("newest", "offered"),
    [
        ({}, "-p model=churn/3 "),
        ({"state": "DELETE IN PROGRESS"}, "-p model=churn/2 "),
        ({"uri": "models:/my churn/3"}, "-p model='my churn/3' "),
        ({"framework": "onnx-triton"}, "with it, served by triton: modelyard run batch-inference"),
        ({"framework": "huggingface", "source_uri": None}, "with it, served by vllm: modelyard"),
        (
            {
                "framework": "huggingface",
                "source_uri": None,
                "parameters": {"task": "fill-mask", "model_id": "o/m"},
            },
            "",
        ),
    ],
)
def test_a_model_offers_to_predict(
    newest: dict[str, Any], offered: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    version = ModelVersionView(
        version=2, uri="models:/churn/2", state="ACTIVE", description="", framework="onnx",
        framework_version="1", source_uri="s3://b/m", parameters={}, aliases=[], run_name=None,
        flow_run_id=None, mlflow_run_id=None, created=None, deletion_error=None,
    )  # fmt: skip
    found = ModelView(
        name="churn", description="", state="ACTIVE", aliases={}, aliases_changed_outside=[],
        versions=[version.model_copy(update={"uri": "models:/churn/3", **newest}), version],
        history=[],
    )  # fmt: skip
    monkeypatch.setattr(model_lineage, "show", lambda _: found)
    monkeypatch.setattr(command, "connected", contextlib.nullcontext)

    def told(*more: str) -> str:
        monkeypatch.setattr(sys, "argv", ["modelyard", "model", "show", "churn", *more])
        with pytest.raises(SystemExit):
            main.main()
        return capsys.readouterr().err

    as_text = told()
    assert offered in as_text
    assert ("batch-inference" in as_text) == bool(offered)
    assert "batch-inference" not in told("--json")


def test_moves_tell_what_a_gate_has_decided(
    asked: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    move = {"at": "2026-01-31T12:00:00+00:00", "user": "me", "alias": "champion", "why": ""}
    rules = [{"rule": "f1 > 0.5"}, {"rule": "mae < old"}]
    decided = [{"gate": {"passed": passed, "rules": rules}} for passed in (True, False)]
    monkeypatch.setattr(
        model_aliases, "moves", lambda *_: [move, *({**move, **one} for one in decided)]
    )
    monkeypatch.setattr(sys, "argv", ["modelyard", "model", "aliases", "m"])
    with pytest.raises(SystemExit):
        main.main()

    lines = capsys.readouterr().out.splitlines()
    assert "f1" not in lines[1]
    assert "passed: f1 > 0.5, mae < old" in lines[2]
    assert "refused: f1 > 0.5, mae < old" in lines[3]
