"""Completion of command lines, whose verbs and options are in a file.

After a change of a verb or an option, write the file anew: ``WRITE_GOLDEN=1 pytest`` this file.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.core

from modelyard import completion, main
from tests.test_light_imports import imported_by


def described(command: Any) -> dict[str, Any]:
    """What is completed of a command."""
    found: dict[str, Any] = {"help": (command.help or "").partition("\n\n")[0].replace("\n", " ")}
    if isinstance(command, typer.core.TyperGroup):
        inner = {name: described(one) for name, one in command.commands.items()}
        return {**found, "commands": inner}
    options = {}
    for param in command.params:
        kind = param.type_descriptor
        values = {"values": list(map(str, kind.choices))} if kind.is_choice else {}
        if isinstance(param, typer.core.TyperArgument):
            found |= values
            continue
        facts = {"help": param.help or "", "has_value": not param.is_flag, **values}
        options |= dict.fromkeys((*param.opts, *param.secondary_opts), facts)
    options["--help"] = {"help": "Show this message and exit.", "has_value": False}
    return {**found, "options": options}


def test_the_file_is_as_the_verbs_are() -> None:
    verbs = {
        verb: {**described(main.cli.get_command(None, verb)), "help": text}
        for verb, (_, text) in main._VERBS.items()
    }
    tree = {"help": "", "commands": verbs}
    if os.environ.get("WRITE_GOLDEN"):
        completion.TREE.write_text(json.dumps(tree, indent=1, ensure_ascii=False) + "\n")

    assert json.loads(completion.TREE.read_text()) == tree


@pytest.mark.parametrize(
    ("before", "word", "found"),
    [
        ([], "sch", ["schedule"]),
        (["runs"], "l", ["list", "logs"]),
        (["runs", "list"], "--s", ["--schedule", "--state", "--since"]),
        (["run"], "t", ["train", "tune"]),
        (["call", "--json"], "tr", ["train"]),
        (["run", "-f", "x"], "tu", ["tune"]),
        (["run", "train"], "", []),
        (["run", "train"], "--w", ["--watch"]),
        (["run", "-f"], "", []),
        (["runs", "list", "--state"], "", []),
        (["open"], "m", ["mlflow"]),
        (["deploy", "--pools"], "k", ["kubernetes"]),
        (["completion"], "", ["bash", "zsh", "fish"]),
        (["credential"], "", ["rotate"]),
        (["nowhere"], "x", []),
    ],
)
def test_what_a_word_can_become(before: list[str], word: str, found: list[str]) -> None:
    assert [item.value for item in completion.find(before, word)] == found


def test_a_shell_asks_by_the_script(tmp_path: Path) -> None:
    """In a real bash, with the command as it is installed."""
    script = f"""
PATH={Path(sys.executable).parent}:$PATH
source <(modelyard completion bash)
COMP_WORDS=(modelyard runs w) COMP_CWORD=2
_modelyard_completion modelyard
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    done = subprocess.run(
        ["bash", "-euc", script], capture_output=True, text=True, cwd=tmp_path, timeout=60
    )

    assert (done.stdout, done.stderr) == ("watch\n", "")


def test_completing_imports_neither_prefect_nor_the_verbs() -> None:
    code = """
import os
os.environ |= {"_MODELYARD_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": "modelyard runs l"}
from modelyard import main
try:
    main.main()
except SystemExit as ended:
    assert not ended.code
"""
    heavy = {"prefect", "mlflow", "sqlalchemy", "httpx", "modelyard.commands.runs"}
    assert imported_by(code, heavy) == set()


def test_what_a_shell_cannot_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    assert completion.complete("complete_nowhere") == 1
    assert completion.complete("odd") == 1


def test_it_is_installed_where_the_shell_finds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["modelyard", "--install-completion", "bash", "--json"])
    with pytest.raises(SystemExit) as raised:
        main.main()

    told = json.loads(capsys.readouterr().out)
    assert raised.value.code == 0
    assert told["shell"] == "bash"
    assert Path(told["file"]).read_text().strip() == completion.script("bash")
    assert told["file"] in (tmp_path / ".bashrc").read_text()


def test_without_a_shell_there_is_no_script(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["modelyard", "completion", "--json"])
    with pytest.raises(SystemExit) as raised:
        main.main()

    assert raised.value.code == 1
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "ShellMissing"
