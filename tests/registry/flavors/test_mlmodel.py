"""What MLflow makes of the files beside a model."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import joblib
import mlflow
import numpy as np
import pandas as pd
import pytest
import yaml
from mlflow.models import Model
from modelyard_runtime import loaders as runtime_loaders
from sklearn.linear_model import LinearRegression

from registry.flavors import mlmodel
from tests.registry import model_files
from tests.registry.trained import content

PACKAGES = [Path(str(metadata.distribution("mlflow").locate_file("")))]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder with a model of scikit-learn."""
    model_files.scikit_learn(tmp_path / "model", "name")
    return tmp_path / "model"


def completed(model: Path, requirements: str = "") -> Path:
    """The model's files with what is written for MLflow."""
    listed, whole = model.parent / "asked.txt", model.parent / "whole"
    listed.write_text(requirements)
    shutil.copytree(model, whole)
    assert mlmodel.write(model, whole, "run", listed, PACKAGES)
    assert content(model).items() <= content(whole).items()
    return whole


def test_a_model_is_loaded_where_modelyard_is_not(model: Path) -> None:
    code = (
        "import sys, mlflow, pandas\n"
        f"model = mlflow.pyfunc.load_model({str(completed(model))!r})\n"
        "print(model.predict(pandas.DataFrame({'x': [3.0, 4.0]})).round(3).tolist())\n"
        "print(type(model.get_raw_model()).__name__)\n"
        "assert 'registry' not in sys.modules and 'infra' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True)

    assert done.stdout.split("\n")[:2] == ["[7.0, 9.0]", "LinearRegression"], done.stderr


def test_a_pickle_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    fitted = LinearRegression().fit([[0.0], [1.0]], [1.0, 3.0])
    (tmp_path / "model" / "line.pkl").write_bytes(pickle.dumps(fitted))

    loaded = mlflow.pyfunc.load_model(str(completed(tmp_path / "model")))

    assert loaded.predict([[3.0]]) == pytest.approx([7.0])


def test_what_mlflow_is_told(model: Path) -> None:
    found = Model.load(str(completed(model)))

    assert (found.run_id, found.artifact_path) == ("run", "model")
    assert found.mlflow_version == metadata.version("mlflow")
    assert found.signature is None
    assert found.flavors["python_function"]["data"] == "model.joblib"


def test_versions_are_those_that_it_was_trained_with(model: Path) -> None:
    asked = (
        "--index"
        "-url https://user:secret@example.org/simple\n"
        "pandas>=1  # a comment\nno-such-package==9\n"
        "odd @ https://user:secret@example.org/odd.zip\n-e ./own\n"
    )
    pip = Path(mlflow.pyfunc.get_model_dependencies(str(completed(model, asked))))

    assert pip.read_text().split() == [
        f"mlflow=={metadata.version('mlflow')}",
        f"scikit-learn=={metadata.version('scikit-learn')}",
        f"joblib=={metadata.version('joblib')}",
        f"pandas=={metadata.version('pandas')}",
        "no-such-package",
    ]


def test_the_users_requirements_stay_and_come_first(model: Path) -> None:
    (model / "requirements.txt").write_text("scikit-learn==1.0\nextra>=2\n")

    whole = completed(model)

    environment = yaml.safe_load((whole / mlmodel.FOLDER / "python_env.yaml").read_text())
    assert environment["dependencies"] == [
        f"mlflow=={metadata.version('mlflow')}", f"joblib=={metadata.version('joblib')}",
        "scikit-learn==1.0", "extra>=2",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["MLmodel", ".modelyard/mine"])
def test_a_model_of_mlflows_own_is_left_as_it_is(model: Path, tmp_path: Path, name: str) -> None:
    (model / name).parent.mkdir(exist_ok=True)
    (model / name).write_text("mine")
    (tmp_path / "empty").mkdir()

    assert not mlmodel.write(model, tmp_path / "empty", "run", tmp_path / "none", PACKAGES)
    assert not any((tmp_path / "empty").iterdir())


def test_of_unknown_files_nothing_is_written(tmp_path: Path) -> None:
    for folder in ("model", "empty"):
        (tmp_path / folder).mkdir()
    (tmp_path / "model" / "weights").write_text("1")

    assert not mlmodel.write(
        tmp_path / "model", tmp_path / "empty", "run", tmp_path / "none", PACKAGES
    )
    assert not any((tmp_path / "empty").iterdir())


def test_an_example_gives_the_signature(model: Path) -> None:
    example = {
        "columns": ["age", "income", "city", "member", "children"],
        "data": [[31, 1.5, "Seoul", True, None], [7, 2, None, False, 2]],
    }
    (model / "input_example.json").write_text(json.dumps(example))

    found = Model.load(str(completed(model)))

    assert found.signature is not None
    assert found.signature.inputs.to_dict() == [
        {"type": "long", "name": "age", "required": True},
        {"type": "double", "name": "income", "required": True},
        {"type": "string", "name": "city", "required": False},
        {"type": "boolean", "name": "member", "required": True},
        {"type": "double", "name": "children", "required": False},
    ]
    shown: Any = found.load_input_example(str(model.parent / "whole"))
    assert isinstance(shown, pd.DataFrame)
    assert shown["age"].tolist() == [31, 7]


@pytest.mark.parametrize(
    ("text", "example"),
    [
        ("no json", False),
        ("[1, 2]", False),
        ('{"columns": ["a"], "data": []}', False),
        ('{"columns": ["a"], "data": [[1, 2]]}', False),
        ('{"columns": ["a"], "data": [[1], ["x"]]}', True),
        ('{"columns": ["a"], "data": [[null]]}', True),
    ],
)
def test_an_example_that_says_nothing_is_no_fault(model: Path, text: str, example: bool) -> None:
    (model / "input_example.json").write_text(text)

    found = Model.load(str(completed(model)))

    assert found.signature is None
    assert (found.saved_input_example_info is not None) is example


class Malicious:
    """Leaves a trace where it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return Path.touch, (self.trace,)


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    joblib.dump(Malicious(tmp_path / "trace"), tmp_path / "model" / "model.joblib")

    completed(tmp_path / "model")

    assert not (tmp_path / "trace").exists()
    joblib.load(tmp_path / "model" / "model.joblib")
    assert (tmp_path / "trace").exists()


def test_two_models_do_not_take_each_others_loader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaders = tmp_path / "loaders"
    shutil.copytree(runtime_loaders.FOLDER, loaders)
    loaded = []
    for slope in (2.0, 3.0):
        model = tmp_path / str(slope) / "model"
        model.mkdir(parents=True)
        x = np.arange(4.0).reshape(-1, 1)
        joblib.dump(LinearRegression().fit(x, slope * x[:, 0]), model / "model.joblib")
        loaded.append(mlflow.pyfunc.load_model(str(completed(model))))
        with (loaders / "joblib_file.py").open("a") as file:
            file.write("\n\nNEWER = True\n")
        monkeypatch.setattr(runtime_loaders, "FOLDER", loaders)

    predicted = [one.predict(np.array([[1.0]]))[0] for one in loaded]
    modules = {one.metadata.flavors["python_function"]["loader_module"] for one in loaded}

    assert np.allclose(predicted, [2.0, 3.0])
    assert len(modules) == 2


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@pytest.mark.parametrize("how", ["weights", "safetensors", "torchscript", "exported", "module"])
def test_models_of_pytorch(tmp_path: Path, how: str) -> None:
    torch = pytest.importorskip("torch")
    line, model = model_files._line(), tmp_path / "model"
    if how in {"weights", "safetensors"}:
        model_files.pytorch_files(model, "name")
        if how == "safetensors":
            from safetensors.torch import save_file

            (model / "model.pt").unlink()
            save_file(line.state_dict(), model / "model.safetensors")
    else:
        model.mkdir()
        if how == "torchscript":
            torch.jit.save(torch.jit.script(line), str(model / "line.pt"))
        elif how == "exported":
            batch = torch.export.Dim("batch")
            exported = torch.export.export(
                line, (torch.zeros(2, 1),), dynamic_shapes=({0: batch},)
            )
            torch.export.save(exported, model / "line.pt2")
        else:
            torch.save(line, model / "line.pt")

    loaded = mlflow.pyfunc.load_model(str(completed(model)))

    for given in (pd.DataFrame({"x": [3, 4]}), np.array([[3.0], [4.0]])):
        assert loaded.predict(given).tolist() == [[7.0], [9.0]]


def test_weights_without_their_network_say_what_is_missing(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    (tmp_path / "model").mkdir()
    torch.save(model_files._line().state_dict(), tmp_path / "model" / "model.pt")
    whole = completed(tmp_path / "model")

    with pytest.raises(TypeError, match="weights without their network"):
        mlflow.pyfunc.load_model(str(whole))


@pytest.mark.parametrize(
    ("package", "make", "given"),
    [
        ("onnxruntime", model_files.onnx_file, [[3.0], [4.0]]),
        ("tensorflow", model_files.tensorflow, [[3.0], [4.0]]),
    ],
)
def test_where_the_package_is_installed(
    tmp_path: Path, package: str, make: model_files.Maker, given: Any
) -> None:
    pytest.importorskip(package)
    make(tmp_path / "model", "name")

    loaded = mlflow.pyfunc.load_model(str(completed(tmp_path / "model")))

    assert np.allclose(loaded.predict(np.array(given)), [[7.0], [9.0]])
