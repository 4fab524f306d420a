"""What a pipeline run is told, and what of it is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra import instance_types, site
from infra.errors import BadInputError, ModelyardError
from infra.home import Home
from infra.settings import Settings
from infra.workloads.kubernetes.job_manifest import ANY_NODE
from registry import names
from tasks.pipelines import request as requests
from tasks.pipelines.request import PipelineRun
from tests.pipelines import corpus


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a run can be told; a NAS holds the folder ``data``."""
    (tmp_path / "nas" / "data").mkdir(parents=True)
    (tmp_path / "nas" / "file").touch()
    monkeypatch.setenv("MODELYARD_NAS", json.dumps({"n1": str(tmp_path / "nas")}))
    (tmp_path / "adding.yaml").write_bytes(corpus.compiled("adding"))
    return {"pipeline": str(tmp_path / "adding.yaml"), "arguments": {"a": 1}}


def _check(home: Home, told: dict[str, Any], **more: Any) -> None:
    requests.check(PipelineRun(**{**told, **more}), None, home, Settings(home=home.root))


def _mount(uri: str = "nas://n1:/data", name: str = "data") -> dict[str, str]:
    return {"name": name, "uri": uri}


def test_what_can_run_is_taken(home: Home, told: dict[str, Any], tmp_path: Path) -> None:
    mounts = [_mount(), _mount("nas://n1:/", "all-of_it")]
    _check(home, told, mounts=mounts, parallel=1000, logs={"uri": str(tmp_path / "logs")})


@pytest.mark.parametrize(
    ("mounts", "message"),
    [
        ([_mount(name="")], "is invalid"),
        ([_mount(name="a/b")], "is invalid"),
        ([_mount(name="..")], "is invalid"),
        ([_mount(name="x" * 64)], "is invalid"),
        ([_mount(), _mount("nas://n1:/")], "'data' is used twice"),
        ([_mount("/tmp")], "not a folder of a NAS"),
        ([_mount("s3://bucket/x")], "not a folder of a NAS"),
        ([_mount("nas://n1:/gone")], "does not exist"),
        ([_mount("nas://n1:/file")], "does not exist"),
        ([_mount(name=f"n{n}") for n in range(11)], "11 mounts"),
    ],
    ids=str,
)
def test_a_mount_that_cannot_be(
    home: Home, told: dict[str, Any], mounts: list[dict[str, str]], message: str
) -> None:
    with pytest.raises(BadInputError, match=message) as caught:
        _check(home, told, mounts=mounts)
    assert caught.value.code == "MountInvalid"
    assert caught.value.hint


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"parallel": 0}, "ParallelInvalid"),
        ({"parallel": 1001}, "ParallelInvalid"),
        ({"mounts": [_mount("nas://other:/data")]}, "NasUnknown"),
        ({"mounts": [_mount("nas://n1:/../x")]}, "PathClimbs"),
        ({"logs": {"uri": "nas://n1:/file/logs"}}, "NotADirectory"),
        ({"logs": {"uri": "/dev/null/logs"}}, "OutputInSystem"),
        ({"logs": {"uri": "ftp://host/logs"}}, "UnknownScheme"),
        ({"pipeline": ""}, "PipelineMissing"),
        ({"arguments": {}}, "ArgumentsInvalid"),
        ({"resources": {"instance_type": "none-such"}}, "InstanceTypeUnknown"),
        ({"resources": {"boot_storage_gib": 1e9}}, "DiskFull"),
        ({"resources": {"data_storage_gib": 1e9}}, "DiskFull"),
    ],
    ids=str,
)
def test_what_cannot_run_is_refused(
    home: Home, told: dict[str, Any], more: dict[str, Any], code: str
) -> None:
    with pytest.raises(ModelyardError) as caught:
        _check(home, told, **more)
    assert caught.value.code == code


class TestElsewhere:
    """Of a run that is for a cluster."""

    @pytest.fixture
    def uploaded(self, told: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
        data = Path(told["pipeline"]).read_bytes()
        monkeypatch.setattr(requests.pipelines, "compiled", lambda _: (data, "adding.yaml"))
        return {**told, "pipeline": "adding:1"}

    def test_what_this_machine_has_does_not_count(
        self, home: Home, uploaded: dict[str, Any]
    ) -> None:
        asked = {"instance_type": "gpu.h100x8", "data_storage_gib": 1e9, "boot_storage_gib": 1e9}
        with site.validating_for_remote():
            _check(home, uploaded, resources=asked, mounts=[_mount("nas://theirs:/x")])

    @pytest.mark.parametrize(
        ("more", "code"),
        [
            ({"pipeline": "FILE"}, "PathNotShared"),
            ({"logs": {"uri": "/logs"}}, "PathNotShared"),
            ({"mounts": [_mount("nas://n1:/gone")]}, "MountInvalid"),
            ({"arguments": {}}, "ArgumentsInvalid"),
        ],
        ids=str,
    )
    def test_what_it_knows_better(
        self, home: Home, told: dict[str, Any], uploaded: dict[str, Any], more: dict[str, Any],
        code: str,
    ) -> None:  # fmt: skip
        if more.get("pipeline"):
            more = {"pipeline": told["pipeline"]}
        with pytest.raises(ModelyardError) as caught, site.validating_for_remote():
            _check(home, uploaded, **more)
        assert caught.value.code == code

    def test_components_in_pods_of_their_own_are_not_this_machines(
        self, home: Home, told: dict[str, Any]
    ) -> None:
        settings = Settings(home=home.root, gpus="none")
        apart = settings.model_copy(update={"pipeline_launcher": "kubernetes"})
        request = PipelineRun(**told, resources={"instance_type": "gpu.h100x8"})
        requests.check(request, None, home, apart)
        with pytest.raises(ModelyardError) as caught:
            requests.check(request, None, home, settings)
        assert caught.value.code == "GpuMissing"


def test_paths_are_those_of_the_caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = PipelineRun(pipeline="x.yaml", logs={"uri": "logs"}).absolute()
    named = PipelineRun(pipeline="x:3").absolute()

    assert found.pipeline == str(tmp_path / "x.yaml")
    assert found.logs.uri == str(tmp_path / "logs")
    assert (named.pipeline, named.logs.uri) == ("x:3", "")


def test_every_component_finds_its_mounts_in_one_folder() -> None:
    request = PipelineRun(mounts=[_mount(), _mount("nas://n1:/x", "x")])

    assert requests.folders(request) == {"/mnt/data": "nas://n1:/data", "/mnt/x": "nas://n1:/x"}


class TestInstances:
    """On a cluster the machines are real; here there is one."""

    ASKED = {"instance_type": "cpu.large", "nodes": 3, "boot_storage_gib": 20}

    def test_components_share_those_that_are_asked_for(self) -> None:
        request = PipelineRun(resources={**self.ASKED, "data_storage_gib": 5})
        found = requests.instances(request, Settings())

        assert (found.type_name, found.count) == ("cpu.large", 3)
        assert found.shape == instance_types.find("cpu.large", Settings())
        assert (found.boot_storage_gib, found.data_storage_gib) == (20, 5)

    def test_without_a_type_components_go_to_any_node(self) -> None:
        assert requests.instances(PipelineRun(), Settings()) == ANY_NODE

    def test_what_one_machine_does_not_enforce_is_said(self) -> None:
        request = PipelineRun(resources=self.ASKED)
        apart = Settings().model_copy(update={"pipeline_launcher": "kubernetes"})

        assert requests.unenforced(request, Settings()) == (
            "Components ran on one machine, which does not enforce resources.nodes, "
            "resources.boot_storage_gib."
        )
        assert requests.unenforced(request, apart) == ""
        assert requests.unenforced(PipelineRun(), Settings()) == ""


@pytest.mark.parametrize(
    ("compiled", "expected"),
    [("weekly report", "weekly report"), ("a/b: c", "a-b- c"), ("...", "pipeline")],
)
def test_a_run_can_be_called_as_any_pipeline_is(
    tmp_path: Path, compiled: str, expected: str
) -> None:
    text = corpus.compiled("adding").decode()
    content = yaml.safe_load(text)
    content["pipelineInfo"]["name"] = compiled
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(content))

    found = requests.base_name(str(tmp_path / "p.yaml"))

    assert found == expected
    names.check(f"{found}-1")
