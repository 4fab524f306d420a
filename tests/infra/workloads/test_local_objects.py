from __future__ import annotations

from pathlib import Path

import pytest

from infra import secrets
from infra.errors import BadInputError, NotFoundError
from infra.workloads.local_objects import LocalObjects, from_store


class TestSecrets:
    @pytest.fixture(autouse=True)
    def _blocks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        blocks = {"s": '{"a": "hidden", "b": ""}', "with-dots": {"c": "d"}, "text": "hidden",
                  "number": '{"a": 1}', "list": "[]"}  # fmt: skip
        monkeypatch.setattr(secrets, "_read", blocks.__getitem__)

    def test_a_block_s_object(self) -> None:
        assert from_store("s") == {"a": "hidden", "b": ""}
        assert from_store("with.dots") == {"c": "d"}

    @pytest.mark.parametrize("name", ["text", "number", "list"])
    def test_what_is_no_object_of_texts(self, name: str) -> None:
        with pytest.raises(BadInputError) as caught:
            from_store(name)
        assert caught.value.code == "SecretNotObject"
        assert "hidden" not in str(caught.value)

    @pytest.mark.parametrize("name", ["../x", "UPPER", "", "a_b"])
    def test_what_is_no_name(self, name: str) -> None:
        with pytest.raises(NotFoundError) as caught:
            from_store(name)
        assert caught.value.code == "SecretMissing"


class TestConfigMaps:
    def test_files_are_keys(self, tmp_path: Path) -> None:
        folder = tmp_path / "configmaps" / "c.d"
        (folder / "below").mkdir(parents=True)
        (folder / "a.yaml").write_bytes(b"x: 1\n")
        (folder / "no key").touch()

        assert LocalObjects(tmp_path).config_map("c.d") == {"a.yaml": b"x: 1\n"}

    @pytest.mark.parametrize("name", ["gone", "..", "c.d/below", ""])
    def test_one_that_is_not_there(self, tmp_path: Path, name: str) -> None:
        (tmp_path / "configmaps" / "c.d" / "below").mkdir(parents=True)
        with pytest.raises(NotFoundError) as caught:
            LocalObjects(tmp_path).config_map(name)
        assert caught.value.code == "ConfigMapMissing"
