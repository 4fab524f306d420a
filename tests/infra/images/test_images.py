"""The images, as far as they can be judged without Docker: nobody builds them in CI."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.infra.images import dockerfiles

ROOT = Path(__file__).parents[3]
IMAGES = ROOT / "infra/images"
FILES = sorted(IMAGES.glob("*Dockerfile"))
BASE = dockerfiles.read(IMAGES / "Dockerfile")
PACKAGES = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"][
    "targets"
]["wheel"]["only-include"]
RUNTIME = "serving/runtime"  # a distribution of its own as well, at the top of ours


def copies(stage: dockerfiles.Stage) -> list[list[str]]:
    """What a stage copies from this repository: sources, and the place last."""
    words = [shlex.split(one) for one in stage.all("COPY")]
    return [each for each in words if not each[0].startswith("--from=")]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_the_image_runs_as_an_ordinary_user(file: Path) -> None:
    made = dockerfiles.read(file)

    assert made.last.all("USER")[-1] == "1000:1000"
    after = [word for word, _ in made.last.instructions][::-1]
    assert "RUN" not in after[: after.index("USER")]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_no_host_is_named(file: Path) -> None:
    """Base images are Docker's library names, and pip looks where the builder says."""
    made = dockerfiles.read(file)
    named = [value for name, value in made.arguments.items() if "IMAGE" in name or name == "BASE"]

    assert named
    assert all("." not in name.partition("/")[0].partition(":")[0] for name in named)
    assert "://" not in file.read_text()
    for stage in made.stages:
        assert [one for one in stage.all("ARG") if one.startswith("PIP_INDEX_URL=")] == []


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_what_a_build_is_told_in_secret_is_in_no_layer(file: Path) -> None:
    """Whatever asks an index may have a pip.conf, by a mount that leaves nothing behind."""
    for stage in dockerfiles.read(file).stages:
        for run in stage.all("RUN"):
            if "pip install" in run and "--no-build-isolation" not in run:
                assert run.startswith("--mount=type=secret,id=pip,target=/etc/pip.conf ")
        for line in stage.all("ARG") + stage.all("ENV"):
            assert not re.search(r"PASSWORD|TOKEN|SECRET", line)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_layers_keep_no_caches(file: Path) -> None:
    for stage in dockerfiles.read(file).stages:
        pip_keeps = "PIP_NO_CACHE_DIR=1" not in " ".join(
            env for one in dockerfiles.read(file).stages for env in one.all("ENV")
        )
        for run in stage.all("RUN"):
            if "apt-get install" in run:
                assert "--no-install-recommends" in run
                assert run.endswith("rm -rf /var/lib/apt/lists/*")
            if "pip install" in run and pip_keeps:
                assert "--no-cache-dir" in run


@pytest.mark.parametrize(
    ("arguments", "root"),
    [
        ({}, "python:3.11-slim-bookworm"),
        ({"PYTHON_DIGEST": "sha256:00"}, "python:3.11-slim-bookworm@sha256:00"),
        ({"VARIANT": "cuda"}, "nvidia/cuda:12.8.1-runtime-ubuntu24.04"),
        ({"VARIANT": "cuda", "CUDA_DIGEST": "sha256:00"},
         "nvidia/cuda:12.8.1-runtime-ubuntu24.04@sha256:00"),
    ],
)  # fmt: skip
def test_the_base_stands_on_what_is_asked_for(arguments: dict[str, str], root: str) -> None:
    assert BASE.root(**arguments) == root


def test_every_package_is_copied_and_nothing_that_is_not_there() -> None:
    copied = [each for stage in BASE.stages for each in copies(stage)]
    sources = {source for *each, _ in copied for source in each}

    assert sources == {*PACKAGES, "pyproject.toml", "README.md", "requirements/runtime.txt"}
    assert all((ROOT / source).exists() for source in sources)
    for *each, place in copied:
        if each[0] in PACKAGES:
            assert place == f"/build/{each[0]}"  # Docker copies what is in a folder


def test_docker_is_sent_what_is_copied() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    sent = {line[1:] for line in lines if line.startswith("!")}
    copied = {one for stage in BASE.stages for *each, _ in copies(stage) for one in each}

    assert "*" in lines
    assert sent == copied


def test_dependencies_are_those_of_the_lock() -> None:
    (installing,) = [stage for stage in BASE.stages if stage.name == "dependencies"]
    (run,) = [one for one in installing.all("RUN") if "pip install" in one]
    lock = (ROOT / "requirements/runtime.txt").read_text()
    names = re.findall(r"^[A-Za-z]", lock, re.MULTILINE)
    hashed = re.findall(
        r"^[\w.\[\]-]+==[^\\\n]*\\\n\s+--hash=sha256:[0-9a-f]{64}", lock, re.MULTILINE
    )

    assert "--require-hashes -r /build/requirements.txt" in run
    assert copies(installing) == [["requirements/runtime.txt", "/build/requirements.txt"]]
    assert len(hashed) == len(names) > 100


def test_bytecode_is_made_once() -> None:
    """compileall leaves what pip has compiled as it is, and that is looked up by times.

    PIP_NO_COMPILE=1 would say the contrary of what it seems to.
    """
    runs = [run for stage in BASE.stages for run in stage.all("RUN") if "pip install" in run]

    assert len(runs) == 2
    assert all("--no-compile" in run and "unchecked-hash" in run for run in runs)
    assert not any("PIP_NO_COMPILE" in env for stage in BASE.stages for env in stage.all("ENV"))


@pytest.mark.parametrize("variant", ["cpu", "cuda"])
def test_the_standard_library_has_bytecode(variant: str) -> None:
    (python,) = [stage for stage in BASE.stages if stage.name == "python"]
    (run,) = python.all("RUN")
    whole = [line for stage in BASE.stages for line in stage.all("COPY")]

    assert "compileall" in run
    assert "unchecked-hash" in run
    assert "stdlib" in run
    based = any(stage.name == "python" for stage in BASE.below({"VARIANT": variant}))
    assert based or "--from=python /usr/local/lib /usr/local/lib" in whole


@pytest.mark.parametrize("variant", ["cpu", "cuda"])
def test_tini_is_the_first_process(variant: str) -> None:
    stages = BASE.below({"VARIANT": variant})

    assert BASE.last.all("ENTRYPOINT") == ['["/usr/bin/tini", "-g", "--"]']
    assert any("tini" in run for stage in stages for run in stage.all("RUN"))
    env = " ".join(BASE.last.all("ENV"))
    assert "PYTHONSAFEPATH=1" in env
    assert "PATH=/opt/modelyard/bin:$PATH" in env


@pytest.mark.parametrize(("file", "package"), [("torch", "TORCH"), ("tensorflow", "TENSORFLOW")])
def test_derived_images_keep_what_the_lock_pins(file: str, package: str) -> None:
    made = dockerfiles.read(IMAGES / f"{file}.Dockerfile")
    (run,) = made.last.all("RUN")

    assert made.root() == "modelyard:0.1.0"
    assert "pip freeze" in run
    assert "--constraint /tmp/kept.txt" in run
    assert f"==${{{package}_VERSION}}" in run


def test_torch_is_the_one_that_is_tested_with() -> None:
    (version,) = re.findall(r"torch==([\d.]+)", (ROOT / "Makefile").read_text())
    made = dockerfiles.read(IMAGES / "torch.Dockerfile")

    assert f"TORCH_VERSION={version}" in made.last.all("ARG")


def test_the_makefile_builds_each() -> None:
    commands = subprocess.run(
        ["make", "--dry-run", "images"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    built = re.findall(r"^docker build .*-f (\S+)", commands, re.MULTILINE)

    assert set(built) == {str(file.relative_to(ROOT)) for file in FILES}


def test_what_is_installed_has_every_file_of_the_packages(tmp_path: Path) -> None:
    """With the command of the image, on what the image is given."""
    (ours,) = [stage for stage in BASE.stages if stage.name == "ours"]
    build = tmp_path / "build"
    build.mkdir()
    for *sources, place in copies(ours):
        for source in sources:
            here = tmp_path / place.strip("/")
            here.parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, here, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / source, here)
    command = shlex.split(ours.all("RUN")[0].partition(" && ")[0])
    local = {"/opt/modelyard/bin/python": sys.executable, "/ours": str(tmp_path / "ours"),
             "/build": str(build)}  # fmt: skip
    command = [local.get(word, word) for word in command]

    subprocess.run([*command, "--quiet"], check=True, cwd=tmp_path)

    (place,) = (tmp_path / "ours/opt/modelyard/lib").glob("python*/site-packages")
    files = {
        str(file.relative_to(build)).removeprefix(f"{RUNTIME}/")
        for package in PACKAGES
        for file in (build / package).rglob("*")
        if file.is_file()
    }
    wanted = files - {"pyproject.toml"}
    installed = {str(file.relative_to(place)) for file in place.rglob("*") if file.is_file()}
    assert wanted - installed == set()
    assert (tmp_path / "ours/opt/modelyard/bin/modelyard").exists()


def test_the_first_process_is_closed_to_its_own_user() -> None:
    """It has the credentials in its environment: see ``infra/undumpable.py``."""
    (entry,) = BASE.last.all("ENTRYPOINT")
    program = shlex.split(entry.strip("[]").replace(",", " "))[0]

    assert f"chmod 0711 {program}" in BASE.last.all("RUN")
