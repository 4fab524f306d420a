from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from infra.errors import BadInputError, ConflictError, NotFoundError
from infra.workloads.claims import LocalClaims
from pipelines import claims

_ASKED = {"access_modes": ["ReadWriteMany"], "size": "5Gi", "pvc_name": "mine"}


def _manifest(**asked: Any) -> dict[str, Any]:
    return claims.build_claim({**_ASKED, **asked}, "run-1")


@pytest.fixture
def kept(tmp_path: Path) -> LocalClaims:
    return LocalClaims(tmp_path / "claims")


class TestCreate:
    def test_it_is_an_empty_folder_with_its_manifest_beside_it(self, kept: LocalClaims) -> None:
        assert kept.create(_manifest(annotations={"team": "blue"}), "run/task") == "mine"

        assert list(kept.path("mine").iterdir()) == []
        told = json.loads((kept.folder / ".mine.json").read_text())
        assert told["metadata"]["annotations"] == {"team": "blue", "modelyard/task": "run/task"}
        assert told["spec"]["resources"] == {"requests": {"storage": "5Gi"}}

    def test_the_same_task_may_do_so_again_and_no_other(self, kept: LocalClaims) -> None:
        kept.create(_manifest(), "run/task")
        (kept.path("mine") / "x").touch()

        assert kept.create(_manifest(), "run/task") == "mine"
        assert (kept.path("mine") / "x").exists()
        with pytest.raises(ConflictError) as caught:
            kept.create(_manifest(), "run/other")
        assert caught.value.code == "ClaimExists"

    def test_one_that_a_person_has_made_is_nobody_s(self, kept: LocalClaims) -> None:
        (kept.folder / "mine").mkdir(parents=True)
        with pytest.raises(ConflictError):
            kept.create(_manifest(), "run/task")

    @pytest.mark.parametrize(
        "asked",
        [
            {"volume_name": "v"},
            {"data_source": {"apiGroup": "g", "kind": "VolumeSnapshot", "name": "s"}},
            {"data_source": {"kind": "PersistentVolumeClaim", "name": "other"}},
        ],
    )
    def test_what_only_a_cluster_has(self, kept: LocalClaims, asked: dict[str, Any]) -> None:
        with pytest.raises(BadInputError) as caught:
            kept.create(_manifest(**asked), "run/task")
        assert caught.value.code == "PlatformUnsupported"
        assert not kept.folder.exists()

    def test_a_manifest_that_a_kill_has_left_is_no_claim(self, kept: LocalClaims) -> None:
        kept.create(_manifest(), "run/killed")
        kept.path("mine").rmdir()

        kept.create(_manifest(), "run/task")

        assert list(kept.path("mine").iterdir()) == []
        assert kept.path("mine").stat().st_mode & 0o777 == 0o777
        with pytest.raises(ConflictError):
            kept.create(_manifest(), "run/killed")


class TestDelete:
    def test_everything_of_it_is_gone(self, kept: LocalClaims) -> None:
        kept.create(_manifest(), "run/task")
        (kept.path("mine") / "x").touch()

        kept.delete("mine")

        assert list(kept.folder.iterdir()) == []
        with pytest.raises(NotFoundError) as caught:
            kept.delete("mine")
        assert caught.value.code == "ClaimMissing"

    @pytest.mark.parametrize("name", ["..", ".mine.json", "a/b", "", "Mine", "/etc"])
    def test_what_is_no_name(self, kept: LocalClaims, name: str) -> None:
        with pytest.raises(BadInputError) as caught:
            kept.delete(name)
        assert caught.value.code == "ClaimInvalid"


class TestNames:
    @pytest.mark.parametrize(
        ("run", "found"),
        [
            ("My Run, 2!", "my-run-2-01234567"),
            ("", "run-01234567"),
            ("일정", "run-01234567"),
            ("x" * 100, f"{'x' * 40}-01234567"),
        ],
    )
    def test_what_they_begin_with(self, run: str, found: str) -> None:
        assert claims.unique_prefix(run, "0123456789") == found

    def test_images(self) -> None:
        assert claims.action("argostub/deletepvc:latest") == claims.DELETE
