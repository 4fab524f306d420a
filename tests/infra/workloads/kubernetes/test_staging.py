from __future__ import annotations

import dataclasses
import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from infra.errors import BadInputError, ModelyardError
from infra.settings import Settings
from infra.workloads.base import Workload
from infra.workloads.kubernetes import stage, staging
from infra.workloads.kubernetes.backend import RunAttempt
from infra.workloads.kubernetes.staging import StagingArea
from infra.workloads.kubernetes.staging_plan import StagingPlan
from pipelines.backends import choice
from tests.infra.workloads.shell import shell


@pytest.fixture
def nas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "nas"
    folder.mkdir()
    monkeypatch.setenv("MODELYARD_NAS", json.dumps({"here": str(folder)}))
    return folder


@pytest.fixture
def carried(nas: Path) -> StagingArea:
    return StagingArea("nas://here:/staging", "run")


def _send(carried: StagingArea, job: Workload) -> StagingPlan:
    return carried.send(job, carried.base("a"), threading.Event())


def _job(tmp_path: Path) -> Workload:
    made = tmp_path / "made"
    made.mkdir()
    return shell(tmp_path / "job", "true", outputs=(made / "output", tmp_path / "job" / "p" / "x"))


def test_inputs_reach_the_job(carried: StagingArea, nas: Path, tmp_path: Path) -> None:
    (tmp_path / "table,1.csv").write_text("1,2")
    (tmp_path / "model" / "deep").mkdir(parents=True)
    (tmp_path / "model" / "deep" / "weights").write_text("w")
    (nas / "elsewhere").write_text("e")
    fetched = tmp_path / "brought" / "elsewhere"
    job = dataclasses.replace(
        _job(tmp_path),
        inputs=(tmp_path / "table,1.csv", tmp_path / "model", tmp_path / "gone", fetched),
        fetched={fetched: "nas://here:/elsewhere"},
    )
    (job.folder / "left").write_text("of an earlier attempt")
    volume = tmp_path / "volume"
    plan = _send(carried, job)

    assert stage.main("in", carried.base("a"), volume) == 0
    place = {path: plan.place(str(path), volume) for path in (*job.inputs[:2], fetched)}
    assert place[tmp_path / "table,1.csv"].read_text() == "1,2"
    assert (place[tmp_path / "model"] / "deep" / "weights").read_text() == "w"
    assert place[fetched].read_text() == "e"
    assert (plan.place(str(job.folder), volume) / "left").read_text() == "of an earlier attempt"
    assert plan.place(str(tmp_path / "made"), volume).stat().st_mode & 0o777 == 0o777
    assert plan.place(str(job.folder / "p"), volume).is_dir()


def test_outputs_come_back(carried: StagingArea, tmp_path: Path) -> None:
    job = _job(tmp_path)
    (job.folder / "old").write_text("stays")
    volume = tmp_path / "volume"
    plan = _send(carried, job)
    stage.main("in", carried.base("a"), volume)
    plan.place(str(tmp_path / "made" / "output"), volume).write_text("made")
    plan.place(str(tmp_path / "made"), volume).joinpath("other").write_text("not asked for")
    plan.place(str(job.folder / "p" / "x"), volume).write_text("7")
    plan.place(str(job.folder), volume).joinpath("beside").write_text("more")

    assert stage.main("out", carried.base("a"), volume) == 0
    carried.collect(job, carried.base("a"), threading.Event())

    assert (tmp_path / "made" / "output").read_text() == "made"
    assert not (tmp_path / "made" / "other").exists()
    assert (job.folder / "p" / "x").read_text() == "7"
    assert (job.folder / "beside").read_text() == "more"
    assert (job.folder / "old").read_text() == "stays"


def test_artifacts_go_where_they_belong_and_not_here(
    carried: StagingArea, nas: Path, tmp_path: Path
) -> None:
    root = tmp_path / "artifacts" / "train"
    job = dataclasses.replace(
        _job(tmp_path),
        outputs=(root / "executor_output.json",),
        sent={root: "nas://here:/artifacts/train"},
    )
    volume = tmp_path / "volume"
    plan = _send(carried, job)
    stage.main("in", carried.base("a"), volume)
    place = plan.place(str(root), volume)
    (place / "executor_output.json").write_text("{}")
    (place / "model").mkdir()
    (place / "model" / "weights").write_text("w")
    (place / "report").write_text("r")

    assert stage.main("out", carried.base("a"), volume) == 0
    carried.collect(job, carried.base("a"), threading.Event())

    assert (root / "executor_output.json").read_text() == "{}"
    assert not (root / "model").exists()
    sent = nas / "artifacts" / "train"
    assert (sent / "model" / "weights").read_text() == "w"
    assert (sent / "report").read_text() == "r"
    assert not (sent / "executor_output.json").exists()


def test_nothing_is_sent_where_nothing_is_written(
    carried: StagingArea, nas: Path, tmp_path: Path
) -> None:
    job = _job(tmp_path)
    volume = tmp_path / "volume"
    _send(carried, job)
    stage.main("in", carried.base("a"), volume)

    assert stage.main("out", carried.base("a"), volume) == 0
    carried.collect(job, carried.base("a"), threading.Event())
    assert not (tmp_path / "made" / "output").exists()


def test_an_input_of_several_jobs_is_sent_once(
    carried: StagingArea, nas: Path, tmp_path: Path
) -> None:
    (tmp_path / "table").write_text("large")
    job = dataclasses.replace(_job(tmp_path), inputs=(tmp_path / "table",))

    plans = [carried.send(job, carried.base(name), threading.Event()) for name in "ab"]

    assert plans[0].fetched == plans[1].fetched
    assert len([path for path in nas.rglob("table") if path.is_file()]) == 1


def test_what_is_one_job_s_alone_is_forgotten(
    carried: StagingArea, nas: Path, tmp_path: Path
) -> None:
    (tmp_path / "table").write_text("large")
    job = dataclasses.replace(_job(tmp_path), inputs=(tmp_path / "table",))
    _send(carried, job)

    carried.forget(carried.base("a"))

    assert [path.name for path in nas.rglob("*") if path.is_file()] == ["table"]


def test_what_cannot_be_brought_is_told(
    carried: StagingArea, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = tmp_path / "brought" / "x"
    _send(carried, dataclasses.replace(_job(tmp_path), fetched={gone: "nas://here:/gone"}))

    assert stage.main("in", carried.base("a"), tmp_path / "volume") == 3
    assert "NotFound: There is nothing at nas://here:/gone" in capsys.readouterr().err


def test_a_transfer_ends_when_the_run_is_stopped(carried: StagingArea, tmp_path: Path) -> None:
    (tmp_path / "table").write_text("large")
    job = dataclasses.replace(_job(tmp_path), inputs=(tmp_path / "table",))
    cancelled = threading.Event()
    cancelled.set()

    with pytest.raises(ModelyardError, match="stopped while its files were staged") as caught:
        carried.send(job, carried.base("a"), cancelled)
    assert caught.value.code == "Stopped"


@pytest.mark.parametrize("uri", ["", "/tmp/staging", "gs://bucket/x", "file:///x"])
def test_a_place_that_no_pod_can_reach(uri: str) -> None:
    with pytest.raises(BadInputError, match="need a place for their files") as caught:
        staging.check(uri)
    assert caught.value.code == "StagingMissing"
    assert "MODELYARD_PIPELINE_STAGING_URI" in caught.value.hint


def test_a_place_that_can_be_written_to(nas: Path) -> None:
    staging.check("nas://here:/staging")


def test_where_artifacts_of_pipelines_go_that_name_no_place(tmp_path: Path) -> None:
    home = {"home": tmp_path, "pipeline_staging_uri": "s3://bucket/x/"}

    assert choice.artifacts(Settings(**home)) == ""
    away = Settings(**home, pipeline_launcher="kubernetes")
    assert choice.artifacts(away) == "s3://bucket/x/artifacts"
    assert choice.artifacts(Settings(**home, home_lasts=False)) == "s3://bucket/x/artifacts"
    assert choice.artifacts(Settings(home=tmp_path, home_lasts=False)) == ""


def test_a_cluster_is_not_asked_before_there_is_a_place_for_files(tmp_path: Path) -> None:
    with pytest.raises(BadInputError) as caught:
        choice.backend(Settings(home=tmp_path, pipeline_launcher="kubernetes"), RunAttempt("1"))
    assert caught.value.code == "StagingMissing"


def test_what_a_component_keeps_to_itself_is_named(
    carried: StagingArea, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """A component that is root may make a file that nobody else can read."""
    job = _job(tmp_path)
    volume = tmp_path / "volume"
    plan = _send(carried, job)
    stage.main("in", carried.base("a"), volume)
    own = plan.place(str(job.folder), volume) / "own"
    own.write_text("1")

    def access(path: Path, mode: int) -> bool:
        return path != own

    monkeypatch.setattr(os, "access", access)
    assert stage.main("out", carried.base("a"), volume) != 0
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"{stage.UNREADABLE}: Only the user {os.geteuid()} may read ")
    assert f"{job.folder}/own" in last
    assert "component_user" in last


def test_what_is_written_has_the_group_of_the_volume(carried: StagingArea, tmp_path: Path) -> None:
    job = _job(tmp_path)
    volume = tmp_path / "volume"
    plan = _send(carried, job)

    stage.main("in", carried.base("a"), volume)

    assert plan.place(str(job.folder), volume).stat().st_mode & 0o7777 == 0o2777
