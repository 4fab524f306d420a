"""What is taken as a model of PyTorch: archives, and networks that need no code."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from infra.errors import BadInputError
from infra.storage import store
from registry import frameworks
from tests.registry import model_files

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")

NAME = "line"


def _check(path: Path) -> None:
    frameworks.check("pytorch", store(str(path)), NAME)


def _code(path: Path) -> str:
    with pytest.raises(BadInputError) as raised:
        _check(path)
    assert raised.value.hint
    assert str(path) in raised.value.message
    return raised.value.code


def _cut(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: len(content) * 2 // 3])


class TestNetwork:
    """A file with a network's operations needs neither model.py nor handler.py."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        model_files.pytorch_scripted(tmp_path / "m", NAME)
        return tmp_path / "m"

    @pytest.mark.parametrize("name", ["model.pt", "model.pth", "model.pt2"])
    def test_content_counts_and_not_the_name(self, folder: Path, name: str) -> None:
        (folder / "model.pt").rename(folder / name)

        _check(folder)

    def test_a_handler_may_be_beside_it(self, folder: Path) -> None:
        (folder / "handler.py").write_text("def handle(data, context):\n    return data\n")

        _check(folder)

    @pytest.mark.parametrize("script", ["handler.py", "model.py"])
    def test_but_not_an_empty_one(self, folder: Path, script: str) -> None:
        (folder / script).write_text("")

        assert _code(folder) == "PytorchFilesMissing"

    def test_an_exported_one_of_earlier_versions(self, folder: Path) -> None:
        with zipfile.ZipFile(folder / "model.pt", "w") as packed:
            packed.writestr("serialized_exported_program.json", "{}")

        _check(folder)

    def test_compiled_libraries_alone_cannot_be_loaded(self, folder: Path) -> None:
        with zipfile.ZipFile(folder / "model.pt", "w") as packed:
            packed.writestr("model/archive_format", "pt2")
            packed.writestr("model/data/aotinductor/model/wrapper.so", "")

        assert _code(folder) == "PytorchFilesMissing"

    @pytest.mark.parametrize("save", [
        lambda torch, file: torch.save({"weight": torch.ones(1)}, file),
        lambda torch, file: torch.save(torch.nn.Linear(1, 1), file),
        lambda torch, file: torch.save({}, file, _use_new_zipfile_serialization=False),
    ], ids=["state dict", "module", "old format"])  # fmt: skip
    def test_what_lacks_its_class_is_refused_with_a_hint(
        self, folder: Path, save: Callable[..., object]
    ) -> None:
        save(pytest.importorskip("torch"), folder / "model.pt")

        with pytest.raises(BadInputError, match="no whole network") as raised:
            _check(folder)

        assert raised.value.code == "PytorchFilesMissing"
        assert "torch.jit.save or torch.export.save" in raised.value.hint

    @pytest.mark.parametrize("make", [model_files.pytorch_scripted, model_files.pytorch_exported])
    def test_an_incomplete_one(self, tmp_path: Path, make: model_files.Maker) -> None:
        make(tmp_path, NAME)
        (file,) = tmp_path.iterdir()
        _cut(file)

        assert _code(tmp_path) == "WeightsMalformed"

    def test_which_of_two_is_unknown(self, folder: Path) -> None:
        shutil.copy(folder / "model.pt", folder / "a.pt")
        (folder / "model.pt").rename(folder / "b.pt")

        assert _code(folder) == "PytorchFilesMissing"


class TestArchive:
    @pytest.fixture
    def archive(self, tmp_path: Path) -> Path:
        model_files.pytorch_archive(tmp_path / "m", NAME)
        return tmp_path / "m" / "line.mar"

    def _pack(self, archive: Path, manifest: str | None, **members: str) -> None:
        with zipfile.ZipFile(archive, "w") as packed:
            if manifest is not None:
                packed.writestr("MAR-INF/MANIFEST.json", manifest)
            for name, content in members.items():
                packed.writestr(name.replace("__", "/"), content)

    def test_another_name_is_refused_with_both_ways_out(self, archive: Path) -> None:
        with pytest.raises(BadInputError) as raised:
            frameworks.check("pytorch", store(str(archive.parent)), "curve")

        assert raised.value.code == "ArchiveNameDiffers"
        assert "'line'" in raised.value.message
        assert "--model-name curve" in raised.value.hint

    @pytest.mark.parametrize(
        "manifest",
        [
            None, "", "[]", "{}", '{"model": []}', '{"model": {}}', "\xff",
            json.dumps({"model": {"modelName": NAME}, "padding": "x" * 2**20}),
        ],
    )  # fmt: skip
    def test_a_manifest_that_says_nothing(self, archive: Path, manifest: str | None) -> None:
        self._pack(archive, manifest)

        assert _code(archive.parent) == "ArchiveMalformed"

    def test_a_file_that_the_manifest_names_is_missing(self, archive: Path) -> None:
        self._pack(archive, '{"model": {"modelName": "line", "serializedFile": "model.pt"}}')

        assert _code(archive.parent) == "ArchiveMalformed"

    def test_a_manifest_that_names_nothing_to_serve(self, archive: Path) -> None:
        self._pack(archive, '{"model": {"modelName": "line"}}')
        assert _code(archive.parent) == "ArchiveMalformed"

        self._pack(archive, '{"model": {"modelName": "line", "handler": "image_classifier"}}')
        _check(archive.parent)

    def test_a_member_that_climbs_out(self, archive: Path) -> None:
        manifest = '{"model": {"modelName": "line", "handler": "x"}}'
        self._pack(archive, manifest, **{"..__evil.py": "x"})

        assert _code(archive.parent) == "ArchiveMalformed"
