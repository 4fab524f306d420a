from __future__ import annotations

from pathlib import Path

import pytest

from infra.workloads.kubernetes.staging_plan import StagingPlan, plan, returned, tops
from tests.infra.workloads.kubernetes.shapes import BASE, ROOT, job


def test_nothing_is_mounted_twice() -> None:
    found = tops([Path("/a/b/c"), Path("/a/b"), Path("/a/bc"), Path("/a/b")])

    assert found == ("/a/b", "/a/bc")


def test_very_many_paths_are_mounted_by_the_folders_above_them() -> None:
    paths = [Path(f"/srv/runs/1/brought/{number}/model") for number in range(1000)]

    assert tops([*paths, Path("/data/x")]) == ("/data/x", "/srv/runs/1/brought")
    assert len(tops(Path(f"/{number}/x") for number in range(30))) == 30


def test_each_path_has_its_place_in_the_volume() -> None:
    found = plan(job(inputs=(Path("/data/table.csv"),)), {Path("/data/table.csv"): "s3://b/t"}, "")

    volume = Path("/volume")
    number = found.tops.index("/data/table.csv")
    assert found.place("/data/table.csv", volume) == volume / str(number)
    outputs = str(ROOT / "artifacts" / "train")
    place = found.place(f"{outputs}/executor_output.json", volume)
    assert place == volume / str(found.tops.index(outputs)) / "executor_output.json"
    with pytest.raises(ValueError, match="/elsewhere"):
        found.place("/elsewhere", volume)


def test_what_comes_back_and_what_is_sent_on() -> None:
    root = ROOT / "artifacts" / "train"
    one = job(
        outputs=(root / "executor_output.json", ROOT / "tasks" / "train" / "parameters" / "x"),
        sent={root: "s3://b/artifacts/train"},
    )

    assert returned(one) == (ROOT / "tasks" / "train", root / "executor_output.json")
    assert plan(one, {}, BASE).sent == (
        (str(root), "s3://b/artifacts/train"),
        (str(ROOT / "tasks" / "train"), f"{BASE}/out/0"),
        (str(root / "executor_output.json"), f"{BASE}/out/1"),
    )


def test_a_plan_is_read_as_it_was_written() -> None:
    made = plan(
        job(fetched={ROOT / "brought" / "ü": "s3://b/ü"}, sent={ROOT / "artifacts": "s3://b/a"}),
        {Path("/data/x"): "s3://b/x"},
        BASE,
    )

    assert made.fetched == (("/data/x", "s3://b/x"), (str(ROOT / "brought" / "ü"), "s3://b/ü"))
    assert StagingPlan.parse(made.text()) == made
