from __future__ import annotations

import functools
import io
import json
import random
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import onnx
import onnx.reference
import pytest
import safetensors.numpy

from infra.errors import BadInputError
from infra.storage import store
from registry import frameworks
from registry.frameworks import protobuf
from tests.registry import model_files
from tests.registry.model_files import MAKERS

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")

NAME = "line"


def _check(framework: str, path: Path) -> None:
    frameworks.check(framework, store(str(path)), NAME)


def _code(framework: str, path: Path) -> str:
    with pytest.raises(BadInputError) as raised:
        _check(framework, path)
    assert raised.value.hint
    assert str(path) in raised.value.message
    return raised.value.code


class TestTable:
    def test_its_titles_are_the_reference_s_and_more(self) -> None:
        assert [framework.title for framework in frameworks.FRAMEWORKS.values()] == [
            "TensorFlow", "PyTorch", "Scikit-learn", "Hugging Face", "ONNX", "XGBoost", "LightGBM",
            "CatBoost", "MLflow", "Custom", "TensorFlow (Triton)", "PyTorch (Triton)",
            "ONNX (Triton)",
        ]  # fmt: skip

    @pytest.mark.parametrize("key", frameworks.FRAMEWORKS)
    def test_keys_and_titles_are_found(self, key: str) -> None:
        found = frameworks.find(key)

        assert found.key == key
        assert frameworks.find(found.title) is found

    @pytest.mark.parametrize(
        ("text", "key"),
        [
            ("PYTORCH", "pytorch"),
            ("Hugging Face", "huggingface"),
            ("HuggingFace", "huggingface"),
            ("hugging-face", "huggingface"),
            ("scikit_learn", "scikit-learn"),
            ("sklearn", "scikit-learn"),
            ("tensorflow (triton)", "tensorflow-triton"),
            ("ONNX(Triton)", "onnx-triton"),
        ],
    )
    def test_spellings(self, text: str, key: str) -> None:
        assert frameworks.find(text).key == key

    @pytest.mark.parametrize("text", ["", "caffe", "triton", "tensorflow pytorch"])
    def test_others_are_refused(self, text: str) -> None:
        with pytest.raises(BadInputError) as raised:
            frameworks.find(text)

        assert raised.value.code == "FrameworkUnknown"
        assert "onnx-triton" in raised.value.hint


@pytest.mark.parametrize("kind", MAKERS)
def test_a_real_model_is_taken(kind: str, tmp_path: Path) -> None:
    framework, make = MAKERS[kind]
    make(tmp_path / "model", NAME)

    _check(framework, tmp_path / "model")


@pytest.mark.parametrize("framework", frameworks.FRAMEWORKS)
def test_every_framework_tells_what_is_not_there(framework: str, tmp_path: Path) -> None:
    assert _code(framework, tmp_path / "nothing") == "ArtifactMissing"
    (tmp_path / "empty").mkdir()
    assert _code(framework, tmp_path / "empty") == "ArtifactMissing"


@pytest.mark.parametrize(
    "kind", ["pytorch archive", "pytorch scripted", "pytorch exported", "scikit-learn", "onnx"]
)
def test_a_model_of_one_file_may_be_named_itself(kind: str, tmp_path: Path) -> None:
    framework, make = MAKERS[kind]
    make(tmp_path / "model", NAME)
    (file,) = (tmp_path / "model").iterdir()

    _check(framework, file)


class TestRealness:
    """The fixtures are what they say: a library loads them."""

    def test_joblib(self, tmp_path: Path) -> None:
        model_files.scikit_learn(tmp_path, NAME)
        assert joblib.load(tmp_path / "model.joblib").predict([[3.0]]) == pytest.approx([7.0])

    def test_onnx(self, tmp_path: Path) -> None:
        model_files.onnx_file(tmp_path, NAME)
        loaded = onnx.load(str(tmp_path / "model.onnx"))
        onnx.checker.check_model(loaded, full_check=True)
        run = onnx.reference.ReferenceEvaluator(loaded)
        assert run.run(None, {"x": np.array([[3.0]], np.float32)})[0] == pytest.approx(7.0)

    def test_safetensors(self, tmp_path: Path) -> None:
        model_files.huggingface(tmp_path, NAME)
        loaded = safetensors.numpy.load_file(tmp_path / "model.safetensors")
        assert loaded["linear.weight"].shape == (2, 2)

    def test_torch_script(self, tmp_path: Path) -> None:
        model_files.pytorch_triton(tmp_path, NAME)
        torch = pytest.importorskip("torch")
        loaded = torch.jit.load(str(tmp_path / "line" / "2" / "model.pt"))
        assert loaded(torch.tensor([[3.0]])).item() == pytest.approx(7.0)

    def test_scripted_and_exported_networks(self, tmp_path: Path) -> None:
        model_files.pytorch_scripted(tmp_path, NAME)
        model_files.pytorch_exported(tmp_path, NAME)
        torch = pytest.importorskip("torch")
        exported = torch.export.load(tmp_path / "model.pt2").module()
        for network in (torch.jit.load(str(tmp_path / "model.pt")), exported):
            assert network(torch.tensor([[3.0]])).item() == pytest.approx(7.0)

    def test_archive(self, tmp_path: Path) -> None:
        model_files.pytorch_archive(tmp_path / "a", NAME)
        with zipfile.ZipFile(tmp_path / "a" / "line.mar") as packed:
            assert json.loads(packed.read("MAR-INF/MANIFEST.json"))["model"]["modelName"] == NAME
            torch = pytest.importorskip("torch")
            weights = torch.load(io.BytesIO(packed.read("model.pt")), weights_only=True)
        assert weights["weight"].item() == 2.0

    def test_saved_model(self, tmp_path: Path) -> None:
        tensorflow = pytest.importorskip("tensorflow")
        loaded = tensorflow.saved_model.load(str(model_files.SAVED_MODEL))
        answer = loaded.signatures["serving_default"](x=tensorflow.constant([3.0]))
        assert answer["y"].numpy().tolist() == [7.0]


def _save(what: object, path: Path) -> None:
    pytest.importorskip("torch").save(what, path)


def _cut(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: len(content) * 2 // 3])


Break = Callable[[Path], object]


def _nest(folder: Path) -> None:
    """Move everything one folder deeper."""
    entries = list(folder.iterdir())
    (folder / "deeper").mkdir()
    for entry in entries:
        shutil.move(entry, folder / "deeper")


def _corrupt(archive: Path, compression: int) -> None:
    """Pack a manifest that cannot be unpacked, in an archive whose directory is whole."""
    with zipfile.ZipFile(archive, "w", compression) as packed:
        packed.writestr("MAR-INF/MANIFEST.json", "{}" + " " * 10_000)
        where = packed.infolist()[0].header_offset + 30 + len("MAR-INF/MANIFEST.json")
        size = packed.infolist()[0].compress_size
    content = bytearray(archive.read_bytes())
    content[where + 9 : where + size] = b"\xff" * (size - 9)  # after the properties of LZMA
    archive.write_bytes(content)


def _weigh(folder: Path, header: str) -> None:
    """Weights of one byte under any header."""
    content = header.encode()
    (folder / "model.safetensors").write_bytes(
        len(content).to_bytes(8, "little") + content + b"\0"
    )


def _weigh_tensor(tensor: dict[str, Any], folder: Path) -> None:
    _weigh(folder, json.dumps({"w": tensor}))


# kind, what is done to it, the code of the error
BROKEN: list[tuple[str, Break, str]] = [
    ("tensorflow", lambda f: (f / "saved_model.pb").unlink(), "SavedModelMissing"),
    ("tensorflow", _nest, "SavedModelMissing"),
    ("tensorflow", lambda f: _cut(f / "saved_model.pb"), "SavedModelMalformed"),
    ("tensorflow", lambda f: (f / "saved_model.pb").write_bytes(b""), "SavedModelMalformed"),
    ("tensorflow", lambda f: (f / "saved_model.pb").write_text("<html>"), "SavedModelMalformed"),
    ("tensorflow", lambda f: (f / "variables/variables.index").unlink(), "VariablesIncomplete"),
    (
        "tensorflow",
        lambda f: (f / "variables/variables.data-00000-of-00001").rename(
            f / "variables/variables.data-00000-of-00002"
        ),
        "VariablesIncomplete",
    ),
    ("tensorflow", lambda f: (f / "variables/variables.data-garbage").write_text("x"),
     "VariablesIncomplete"),
    ("tensorflow", lambda f: (f / "variables/variables.data-00000-of-00001").rename(
        f / "variables/variables.data-garbage"), "VariablesIncomplete"),
    ("pytorch archive", lambda f: _cut(f / "line.mar"), "ArchiveMalformed"),
    ("pytorch archive", lambda f: _corrupt(f / "line.mar", zipfile.ZIP_LZMA), "ArchiveMalformed"),
    ("pytorch archive", lambda f: _corrupt(f / "line.mar", zipfile.ZIP_BZIP2), "ArchiveMalformed"),
    ("pytorch archive", lambda f: (f / "line.mar").write_bytes(b""), "ArchiveMalformed"),
    ("pytorch archive", lambda f: (f / "line.mar").write_text("no zip"), "ArchiveMalformed"),
    ("pytorch archive", lambda f: shutil.copy(f / "line.mar", f / "two.mar"), "ArchiveAmbiguous"),
    ("pytorch files", lambda f: (f / "model.py").unlink(), "PytorchFilesMissing"),
    ("pytorch files", lambda f: (f / "handler.py").write_text(""), "PytorchFilesMissing"),
    ("pytorch files", _nest, "PytorchFilesMissing"),
    ("pytorch files", lambda f: (f / "model.pt").unlink(), "WeightsMissing"),
    ("pytorch files", lambda f: (f / "model.pt").write_bytes(b""), "WeightsMalformed"),
    ("pytorch files", lambda f: (f / "model.pt").write_text("<html>"), "WeightsMalformed"),
    ("pytorch files", lambda f: shutil.copy(f / "model.pt", f / "model.bin"), "WeightsAmbiguous"),
    ("scikit-learn", lambda f: (f / "model.joblib").rename(f / "model.npz"), "JoblibMissing"),
    ("scikit-learn", _nest, "JoblibMissing"),
    ("scikit-learn", lambda f: (f / "model.joblib").write_bytes(b""), "JoblibMalformed"),
    ("scikit-learn", lambda f: (f / "model.joblib").write_text("version https://git-lfs"),
     "JoblibMalformed"),
    ("huggingface", lambda f: (f / "pytorch_model.bin").write_bytes(b"x"), "WeightsForbidden"),
    ("huggingface", lambda f: (f / "a.PKL").write_bytes(b"x"), "WeightsForbidden"),
    ("huggingface", lambda f: (f / "model.safetensors").unlink(), "SafetensorsMissing"),
    ("huggingface", _nest, "SafetensorsMissing"),
    ("huggingface", lambda f: _cut(f / "model.safetensors"), "SafetensorsMalformed"),
    ("huggingface", lambda f: (f / "model.safetensors").write_bytes(b""), "SafetensorsMalformed"),
    ("huggingface", lambda f: (f / "model.safetensors").write_bytes(
        b"\x08" + b"\0" * 7 + b"nonsense"), "SafetensorsMalformed"),
    ("huggingface", lambda f: _weigh(f, "[" * 100_000), "SafetensorsMalformed"),
    *(
        ("huggingface", functools.partial(_weigh_tensor, tensor), "SafetensorsMalformed")
        for tensor in (
            {"shape": [1], "data_offsets": [0, 1]},
            {"dtype": "U8", "data_offsets": [0, 1]},
            {"dtype": 8, "shape": [1], "data_offsets": [0, 1]},
            {"dtype": "U8", "shape": "", "data_offsets": [0, 1]},
            {"dtype": "U8", "shape": [True], "data_offsets": [0, 1]},
            {"dtype": "U8", "shape": [-1], "data_offsets": [0, 1]},
            {"dtype": "U8", "shape": [1], "data_offsets": [False, True]},
        )
    ),
    ("huggingface", lambda f: (f / "config.json").write_text("[" * 100_000), "ConfigMalformed"),
    ("huggingface", lambda f: (f / "config.json").unlink(), "ConfigMissing"),
    ("huggingface", lambda f: (f / "config.json").write_text("[1]"), "ConfigMalformed"),
    ("huggingface", lambda f: (f / "config.json").write_bytes(b"\xff\xfe"), "ArtifactMalformed"),
    ("huggingface", lambda f: (f / "model.safetensors.index.json").write_text("{}"),
     "SafetensorsMalformed"),
    ("huggingface", lambda f: (f / "model.safetensors.index.json").write_text(
        '{"weight_map": {"a": "model-00002-of-00002.safetensors"}}'), "SafetensorsMissing"),
    ("onnx", lambda f: (f / "model.onnx").rename(f / "model.pb"), "OnnxMissing"),
    ("onnx", _nest, "OnnxMissing"),
    ("onnx", lambda f: _cut(f / "model.onnx"), "OnnxMalformed"),
    ("onnx", lambda f: (f / "model.onnx").write_bytes(b""), "OnnxMalformed"),
    ("onnx", lambda f: (f / "model.onnx").write_bytes(b"\x08\x0a"), "OnnxMalformed"),
    ("onnx", lambda f: shutil.copytree(model_files.SAVED_MODEL, f / "x") and [
        shutil.copy(f / "model.onnx", f / name) for name in ("a.onnx", "b.onnx")
    ] and (f / "model.onnx").unlink(), "OnnxAmbiguous"),
    ("tensorflow-triton", lambda f: (f / "config.pbtxt").unlink(), "TritonConfigMissing"),
    ("tensorflow-triton", lambda f: (f / "1").rename(f / "one"), "TritonVersionMissing"),
    ("tensorflow-triton", lambda f: (f / "1/model.savedmodel").rename(f / "1/model"),
     "TritonModelMissing"),
    ("tensorflow-triton", lambda f: (f / "1/model.savedmodel/saved_model.pb").unlink(),
     "SavedModelMissing"),
    ("pytorch-triton", lambda f: shutil.copytree(f / "line", f / "two"), "TritonConfigMissing"),
    ("pytorch-triton", lambda f: (f / "line/2/model.pt").rename(f / "line/2/other.pt"),
     "TritonModelMissing"),
    ("pytorch-triton", lambda f: _save({}, f / "line/1/model.pt"), "TorchScriptMalformed"),
    ("pytorch-triton", lambda f: _cut(f / "line/1/model.pt"), "TorchScriptMalformed"),
    ("onnx-triton", lambda f: (f / "config.pbtxt").write_text('backend: "python"'),
     "TritonBackendDiffers"),
    ("onnx-triton", lambda f: (f / "1/model.onnx").rename(f / "1/line.onnx"),
     "TritonModelMissing"),
    ("onnx-triton", lambda f: _cut(f / "1/model.onnx"), "OnnxMalformed"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "spoil", "code"),
    BROKEN,
    ids=[f"{number}-{kind}-{code}" for number, (kind, _, code) in enumerate(BROKEN)],
)
def test_a_broken_one_is_refused(kind: str, spoil: Break, code: str, tmp_path: Path) -> None:
    framework, make = MAKERS[kind]
    folder = tmp_path / "model"
    make(folder, NAME)
    spoil(folder)

    assert _code(framework, folder) == code


@pytest.mark.parametrize(
    "framework", ["tensorflow", "pytorch", "scikit-learn", "huggingface", "onnx"]
)
def test_one_that_lies_deeper_is_pointed_to(framework: str, tmp_path: Path) -> None:
    MAKERS[framework if framework != "pytorch" else "pytorch files"][1](tmp_path / "m", NAME)
    _nest(tmp_path / "m")

    with pytest.raises(BadInputError) as raised:
        _check(framework, tmp_path / "m")

    assert "deeper/" in raised.value.hint


def test_the_one_called_model_is_the_model(tmp_path: Path) -> None:
    model_files.scikit_learn(tmp_path, NAME)
    shutil.copy(tmp_path / "model.joblib", tmp_path / "scaler.joblib")

    _check("scikit-learn", tmp_path)


@pytest.mark.parametrize("kind", MAKERS)
def test_bytes_that_were_changed_are_taken_or_refused_and_nothing_else(
    kind: str, tmp_path: Path
) -> None:
    framework, make = MAKERS[kind]
    make(tmp_path / "m", NAME)
    files = sorted(path for path in (tmp_path / "m").rglob("*") if path.is_file())
    chance = random.Random(kind)
    refusals = 0
    for _ in range(60):
        file = chance.choice(files)
        content = file.read_bytes()
        changed = bytearray(content)
        for _ in range(chance.randint(1, 8)):
            if changed:
                changed[chance.randrange(min(len(changed), 400))] = chance.randrange(256)
        file.write_bytes(bytes(changed[: chance.randint(0, 2 * len(changed))]))
        try:
            _check(framework, tmp_path / "m")
        except BadInputError:
            refusals += 1
        file.write_bytes(content)

    assert refusals


class TestTriton:
    def test_another_file_may_be_the_configured_one(self, tmp_path: Path) -> None:
        model_files.onnx_triton(tmp_path, NAME)
        (tmp_path / "1" / "model.onnx").rename(tmp_path / "1" / "line.onnx")
        (tmp_path / "config.pbtxt").write_text('default_model_filename: "line.onnx"\n')

        _check("onnx-triton", tmp_path)

    @pytest.mark.parametrize(
        "config",
        [
            'name: "m" platform: "pytorch_libtorch"',
            'name:"m",platform:"pytorch_libtorch"',
            "platform: 'pytorch_libtorch' # platform: \"onnxruntime_onnx\"",
            'input [ { name: "x" dims: [ 1 ] } ] backend: "pytorch"',
        ],
    )
    def test_the_other_kind_is_seen_wherever_it_stands(self, config: str, tmp_path: Path) -> None:
        model_files.onnx_triton(tmp_path, NAME)
        (tmp_path / "config.pbtxt").write_text(config)

        assert _code("onnx-triton", tmp_path) == "TritonBackendDiffers"

    @pytest.mark.parametrize(
        "config",
        [
            '# platform: "pytorch_libtorch"',
            'name: "platform: \\"pytorch_libtorch\\""',
            'parameters { key: "a" value: { backend: "pytorch" } } platform: "onnxruntime_onnx"',
        ],
    )
    def test_what_only_looks_like_another_kind_is_taken(self, config: str, tmp_path: Path) -> None:
        model_files.onnx_triton(tmp_path, NAME)
        (tmp_path / "config.pbtxt").write_text(config)

        _check("onnx-triton", tmp_path)

    def test_the_other_kind_is_named(self, tmp_path: Path) -> None:
        model_files.tensorflow_triton(tmp_path, NAME)

        with pytest.raises(BadInputError) as raised:
            _check("onnx-triton", tmp_path)

        assert "tensorflow_savedmodel" in raised.value.message


def test_only_the_heads_of_large_files_are_read(tmp_path: Path) -> None:
    """A check of gigabytes in a bucket must not transfer them."""
    weights = {"w": np.zeros(4_000_000, np.float32)}
    safetensors.numpy.save_file(weights, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{}")
    files = store(str(tmp_path))
    read = files.read
    transferred = 0

    def counting(name: str = "", *, offset: int = 0, length: int | None = None) -> bytes:
        nonlocal transferred
        piece = read(name, offset=offset, length=length)
        transferred += len(piece)
        return piece

    files.read = counting  # type: ignore[method-assign]
    frameworks.check("huggingface", files, NAME)

    assert transferred < 200_000


def test_too_many_files_are_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("registry.frameworks.layout._MOST_FILES", 2)
    for number in range(3):
        (tmp_path / f"{number}.joblib").write_bytes(b"\x80")

    assert _code("scikit-learn", tmp_path) == "ArtifactTooManyFiles"


class TestProtobuf:
    def _fields(self, content: bytes) -> list[int]:
        return list(protobuf.fields(io.BytesIO(content), len(content)))

    def test_all_kinds_of_fields(self) -> None:
        content = b"\x08\x96\x01" + b"\x12\x03abc" + b"\x1d1234" + b"\x2112345678" + b"\x32\x00"

        assert self._fields(content) == [1, 2, 3, 4, 6]

    def test_nothing_has_none(self) -> None:
        assert self._fields(b"") == []

    @pytest.mark.parametrize(
        "content",
        [b"\x08", b"\x08\xff", b"\x12\x05abc", b"\x1d12", b"\x00\x01", b"\x0b", b"\xff" * 20],
    )
    def test_broken_messages(self, content: bytes) -> None:
        with pytest.raises(protobuf.MalformedError):
            self._fields(content)
