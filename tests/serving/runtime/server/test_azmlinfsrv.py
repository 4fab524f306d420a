"""``azmlinfsrv`` of the runtime's wheel, in an environment that has no Modelyard."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from modelyard_runtime.server import azmlinfsrv

from tests.processes import eventually

_RUNTIME = Path(azmlinfsrv.__file__).parents[2]
# The script of Azure ML's own quickstart.
_SCRIPT = """
import os
import time

def init():
    time.sleep(0.1)

def run(input_data):
    return {"message": "Hello, World!", "process": os.getpid()}
"""


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The installed command; what the wheel depends on is found where the tests have it."""
    folder = tmp_path_factory.mktemp("installed")
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run(*arguments: str | Path) -> None:
        subprocess.run(
            [sys.executable, "-m", *arguments], cwd=_RUNTIME, env=variables, check=True,
            timeout=60, capture_output=True,
        )  # fmt: skip

    run("hatchling", "build", "-t", "wheel", "-d", folder)
    venv.create(folder / "env")
    (wheel,) = folder.glob("*.whl")
    run("pip", "--python", folder / "env" / "bin" / "python", "install", "--no-index", "--no-deps",
        wheel)  # fmt: skip
    (packages,) = (folder / "env" / "lib").glob("python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return folder / "env" / "bin" / "azmlinfsrv"


Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(command: Path, tmp_path: Path) -> Iterator[Start]:
    started: list[subprocess.Popen[str]] = []
    (tmp_path / "score.py").write_text(_SCRIPT)
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run(*arguments: str) -> subprocess.Popen[str]:
        started.append(subprocess.Popen(
            [command, *arguments], cwd=tmp_path, env=variables, stderr=subprocess.PIPE, text=True
        ))  # fmt: skip
        return started[-1]

    yield run
    for process in started:
        process.terminate()
        process.communicate(timeout=30)


def _url(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    url = process.stderr.readline().partition("Listening on ")[2].strip()
    eventually(lambda: httpx.get(url).text == "Healthy", "init() has returned")
    return url


@pytest.mark.integration
def test_azure_s_quickstart(start: Start) -> None:
    process = start("--entry_script", "score.py", "--port", "0")
    answer = httpx.get(f"{_url(process)}/score")

    assert answer.json() == {"message": "Hello, World!", "process": process.pid}
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0


@pytest.mark.integration
def test_workers_share_the_port_and_end_together(start: Start) -> None:
    process = start("--entry_script", "score.py", "--model_dir", ".", "--port", "0",
                    "--worker_count", "2")  # fmt: skip
    url = _url(process)
    seen: set[int] = set()

    def ask() -> bool:
        answer = httpx.get(f"{url}/score")
        if answer.status_code != 503:  # a worker whose init() has not returned says so
            seen.add(answer.json()["process"])
        return len(seen) == 2

    eventually(ask, "both workers answer")
    os.kill(seen.pop(), signal.SIGKILL)

    assert process.wait(30) == -signal.SIGKILL % 256
    with pytest.raises(httpx.TransportError):
        httpx.get(url)


@pytest.mark.parametrize(
    ("script", "options", "said"),
    [
        ("def init(): 1 / 0\ndef run(data): pass\n", [], "ZeroDivisionError"),
        ("def init(): 1 / 0\ndef run(data): pass\n", ["--worker_count", "2"], "ZeroDivisionError"),
        ("", ["--entry_script", "none.py"], "there is no script none.py"),
        ("", ["--worker_count", "0"], "--worker_count is 0: give 1 to 64"),
    ],
)
@pytest.mark.integration
def test_what_cannot_be_served_fails_the_command(
    start: Start, tmp_path: Path, script: str, options: list[str], said: str
) -> None:
    (tmp_path / "score.py").write_text(script)
    process = start("--entry_script", "score.py", "--port", "0", *options)
    _, errors = process.communicate(timeout=60)

    assert process.returncode in {1, 2}
    assert said in errors


def test_a_port_in_use_is_refused(tmp_path: Path) -> None:
    (tmp_path / "score.py").touch()
    with (
        azmlinfsrv.socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(SystemExit, match="cannot be used: Address already in use"),
    ):
        port = str(taken.getsockname()[1])
        azmlinfsrv.main(["--entry_script", str(tmp_path / "score.py"), "--port", port])
