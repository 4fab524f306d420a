from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from infra import site
from infra.errors import BadInputError, ConflictError
from infra.home import Home
from infra.settings import Settings
from tasks import outputs
from tasks.training import training_request
from tasks.training.training_request import Training


def _code(given: Training, home: Home, settings: Settings) -> str:
    with pytest.raises(BadInputError) as raised:
        training_request.check(given, home, settings)
    assert raised.value.message.startswith("output_uri: ")
    return raised.value.code


@pytest.mark.parametrize("below", ["", "runs", "new/one", ".."])
def test_modelyards_home_is_refused(
    given: Callable[..., Training], home: Home, settings: Settings, below: str
) -> None:
    place = (home.root / below).resolve()

    assert _code(given(output_uri=str(place)), home, settings) == "OutputInHome"


def test_the_home_is_refused_by_another_name(
    given: Callable[..., Training], home: Home, settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(home.root)

    for uri in (f"{tmp_path}/link/artifacts", f"file://{tmp_path}/%6Cink"):
        assert _code(given(output_uri=uri), home, settings) == "OutputInHome"


@pytest.mark.parametrize(
    "uri",
    ["/etc/models", "/usr", "/proc/self", f"{sys.prefix}/lib",
     str(Path(__file__).parents[2] / "tasks")],
)  # fmt: skip
def test_folders_of_the_system_are_refused(
    given: Callable[..., Training], home: Home, settings: Settings, uri: str
) -> None:
    assert _code(given(output_uri=uri), home, settings) == "OutputInSystem"


@pytest.mark.parametrize(
    ("uri", "changes"),
    [
        ("TMP/algorithm", {}),
        ("TMP/algorithm/deep", {}),
        ("TMP/algorithm/new", {}),
        ("TMP/data", {"datasets": [{"name": "a", "uri": "TMP/data"}]}),
        ("TMP/data/out", {"datasets": [{"name": "a", "uri": "file://TMP/data/"}]}),
        ("TMP/linked", {"datasets": [{"name": "a", "uri": "TMP/linked/train.py"}]}),
        ("TMP/data", {"checkpoint_input_uri": "TMP/data"}),
    ],
)
def test_what_the_run_reads_is_refused(
    given: Callable[..., Training], home: Home, settings: Settings, tmp_path: Path, uri: str,
    changes: dict[str, object],
) -> None:  # fmt: skip
    if uri == "TMP/linked":
        (tmp_path / "linked" / "train.py").unlink()
        (tmp_path / "linked" / "train.py").touch()
    found = given(output_uri=uri, **changes)

    assert _code(found, home, settings) == "OutputInSource"
    assert _code(found.model_copy(update={"overwrite": True}), home, settings) == "OutputInSource"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"checkpoint_uri": "HOME/runs"}, "OutputInHome"),
        ({"checkpoint_uri": "/usr/lib"}, "OutputInSystem"),
        ({"checkpoint_uri": "TMP/algorithm/deep"}, "OutputInSource"),
        ({"checkpoint_uri": "TMP", "datasets": [{"name": "a", "uri": "TMP/data"}]},
         "OutputInSource"),
        ({"logs": {"uri": "HOME"}}, "OutputInHome"),
        ({"logs": {"uri": "/etc"}}, "OutputInSystem"),
    ],
)  # fmt: skip
def test_checkpoints_and_logs_stay_out_of_them_as_well(
    given: Callable[..., Training], home: Home, settings: Settings, changes: dict[str, object],
    code: str,
) -> None:  # fmt: skip
    asked = json.loads(json.dumps(changes).replace("HOME", str(home.root)))
    with pytest.raises(BadInputError) as raised:
        training_request.check(given(**asked), home, settings)

    field = "logs.uri" if "logs" in changes else "checkpoint_uri"
    assert (raised.value.code, raised.value.message.split(":")[0]) == (code, field)


def test_checkpoints_go_on_where_the_run_begins_from(
    given: Callable[..., Training], home: Home, settings: Settings
) -> None:
    found = given(checkpoint_input_uri="TMP/data", checkpoint_uri="TMP/data")

    training_request.check(found, home, settings)


def test_a_folder_beside_them_is_good(
    given: Callable[..., Training], home: Home, settings: Settings
) -> None:
    for uri in ("TMP/algorithm-out", "TMP/out/deep", "file://TMP/out"):
        training_request.check(given(output_uri=uri), home, settings)


def test_a_place_of_another_machine_is_compared_by_its_name(home: Home) -> None:
    with site.validating_for_remote():
        outputs.check("output_uri", "nas://n:/out", [("the algorithm", "nas://n:/outside")], home)
        for uri in ("nas://n:/in", "nas://n:/in/", "nas://n:/in/deep"):
            with pytest.raises(BadInputError) as raised:
                outputs.check("output_uri", uri, [("the algorithm", "nas://n:/in")], home)
            assert raised.value.code == "OutputInSource"


class TestUnused:
    def test_files_of_others_are_refused(self, tmp_path: Path) -> None:
        (tmp_path / "theirs").touch()

        with pytest.raises(ConflictError) as raised:
            outputs.check_unused(str(tmp_path), lambda _: False, overwrite=False)

        assert raised.value.code == "OutputNotEmpty"
        assert "overwrite=true" in raised.value.hint

    def test_what_a_run_has_published_is_known_by_its_place(self, tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "ours").touch()
        (tmp_path / "link").symlink_to("out")
        known = {str(tmp_path / "out")}

        for uri in (f"{tmp_path}/out", f"file://{tmp_path}/out/", f"{tmp_path}/link"):
            outputs.check_unused(uri, known.__contains__, overwrite=False)

    def test_others_are_good(self, tmp_path: Path) -> None:
        (tmp_path / "theirs").touch()
        (tmp_path / "empty").mkdir()
        (tmp_path / "killed" / ".entries.copy.partial").mkdir(parents=True)

        outputs.check_unused(str(tmp_path), lambda _: False, overwrite=True)
        for uri in ("", f"{tmp_path}/new", f"{tmp_path}/empty", f"{tmp_path}/killed"):
            outputs.check_unused(uri, lambda _: False, overwrite=False)
