"""``modelyard katib``: an Experiment as parameters that ``run tune -f`` takes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from infra.errors import BadInputError
from modelyard import parameters
from modelyard.commands.katib import katib
from tasks.parameters import read
from tasks.tuning.tuning_request import Tuning
from tuning.katib import ConvertedExperiment
from tuning.katib import read as reading

_EXPERIMENTS = Path(__file__).parents[1] / "tuning" / "katib" / "experiments"


@pytest.mark.parametrize("file", sorted(_EXPERIMENTS.glob("*.yaml")), ids=lambda one: one.stem)
def test_what_is_printed_is_a_file_of_parameters(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    katib(file)

    printed = capsys.readouterr().out
    written = tmp_path / "tune.yaml"
    written.write_text(printed)
    found = parameters.read(written, None)
    expected = reading(file.read_text())
    assert found == expected.parameters
    assert read(Tuning, found)
    comments = [line[2:] for line in printed.splitlines() if line.startswith("# ")]
    assert comments == [" ".join(line.split()) for line in expected.left_out]


def test_for_programs_it_is_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    file = _EXPERIMENTS / "random.yaml"
    katib(file, json=True)

    out = capsys.readouterr().out
    expected = reading(file.read_text())
    assert json.loads(out) == {"parameters": expected.parameters, "left_out": expected.left_out}
    assert out.count("\n") == 1


def test_what_is_left_out_breaks_no_line_and_is_no_markup(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = ConvertedExperiment({"name": "이름"}, ["[bold]one[/bold]\nname: other"])
    monkeypatch.setattr("modelyard.commands.katib.experiments.read", lambda _: said)
    file = tmp_path / "experiment.yaml"
    file.write_text("이름", encoding="utf-8")
    katib(file)

    out = capsys.readouterr().out
    assert yaml.safe_load(out) == {"name": "이름"}
    assert out.splitlines()[1:] == ["# [bold]one[/bold] name: other"]


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"])
def test_a_file_that_cannot_be_read(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "experiment.yaml"
    if content is not None:
        file.write_bytes(content)

    with pytest.raises(BadInputError) as raised:
        katib(file)
    assert str(file) in raised.value.message
