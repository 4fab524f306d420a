from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from infra.settings import Settings
from infra.workloads.base import Backend, ResourceRequest, Workload
from infra.workloads.environments import EnvironmentCache
from infra.workloads.exit_status import ExitStatus
from infra.workloads.local_objects import LocalObjects
from infra.workloads.mounts import impossible
from pipelines.backends.process import ComponentProcessBackend
from tests.infra.workloads.backend_contract import DETACHED, LocalBackendContract, mounts
from tests.infra.workloads.shell import run, shell
from tests.pipelines.backends.jobs import output, python
from tests.processes import eventually, pid_in, runs

pytestmark = pytest.mark.integration

_ROOT = Path(__file__).parents[3]
_ANSWER = "def run() -> str:\n    return 'answer'\n"


class TestComponentProcessBackend(LocalBackendContract):
    @pytest.fixture
    def backend(  # type: ignore[override]
        self, environments: EnvironmentCache, settings: Settings, kept: LocalObjects
    ) -> Iterator[ComponentProcessBackend]:
        backend = ComponentProcessBackend(environments, settings, objects=kept)
        yield backend
        backend.close()

    def test_what_is_not_as_in_a_container_is_told_once(
        self, backend: Backend, tmp_path: Path
    ) -> None:
        limited = shell(tmp_path / "job", "echo on", resources=ResourceRequest(cpu=1))
        job = dataclasses.replace(limited, image="registry.example/python:2.7-slim")

        ours = f"{sys.version_info.major}.{sys.version_info.minor}"
        assert run(backend, job)[1] == [
            f"The image registry.example/python:2.7-slim is not used: it runs with Python {ours}.",
            "Limits of CPU and memory are not enforced on processes.",
            "on",
        ]
        assert run(backend, job)[1] == ["on"]

    @pytest.mark.skipif(bool(impossible()), reason="this machine gives processes no mounts")
    def test_mounts_are_a_lightweight_component_s_too(
        self, backend: Backend, kept: LocalObjects, tmp_path: Path
    ) -> None:
        claim = kept.claims.folder / "mine"
        claim.mkdir(parents=True)
        (claim / "given").write_text("word")
        source = """
def run() -> str:
    with open("/here/given") as file:
        return file.read()
"""
        wanted = mounts(here={"persistentVolumeClaim": {"claimName": "mine"}})
        job = python(tmp_path / "job", source, kubernetes=wanted)
        ended, lines = run(backend, job)
        assert ended == ExitStatus(0), lines
        assert output(tmp_path / "job") == "word"


class TestEnvironment:
    @pytest.fixture(params=[True, False], ids=["warm", "cold"])
    def backend(
        self, environments: EnvironmentCache, settings: Settings, request: pytest.FixtureRequest
    ) -> Iterator[ComponentProcessBackend]:
        backend = ComponentProcessBackend(environments, settings, warm=request.param)
        yield backend
        backend.close()

    def test_it_returns(self, backend: Backend, tmp_path: Path) -> None:
        ended, _ = run(backend, python(tmp_path / "job", _ANSWER))

        assert ended == ExitStatus(0)
        assert output(tmp_path / "job") == "answer"

    def test_it_looks_like_an_interpreter_started_for_it(
        self, backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MODELYARD_APPKEY", "ours")
        monkeypatch.setenv("PYTHONPATH", str(_ROOT))
        source = """
def run() -> dict:
    import json, os, random, signal, subprocess, sys
    return {
        "cwd": [os.getcwd(), sys.path[1]],
        "argv": sys.argv[1:3],
        "main": sys.modules["__main__"].__spec__.name,
        "stdin": sys.stdin.read(),
        "word": os.environ["WORD"],
        "ours": [name for name in os.environ if name.startswith(("MODELYARD", "PYTHONPATH"))],
        "runtime": os.environ["_KFP_RUNTIME"],
        "gpus": os.environ["CUDA_VISIBLE_DEVICES"],
        "group": os.getpgid(0) == os.getpid(),
        "handlers": [
            signal.getsignal(signal.SIGTERM) == signal.SIG_DFL,
            signal.getsignal(signal.SIGINT) is signal.default_int_handler,
            signal.getsignal(signal.SIGPIPE) == signal.SIG_IGN,
        ],
        "same": subprocess.check_output(["python3", "-c", "import sys; print(sys.prefix)"],
                                        text=True).strip() == sys.prefix,
        "executable": sys.executable.startswith(sys.prefix),
        "prefect": __import__("importlib.util").util.find_spec("prefect") is not None,
        "random": random.random(),
    }
"""
        found = []
        for number in range(2):
            folder = tmp_path / f"job{number}"
            job = python(folder, source, environment={"WORD": "two\nlines"})
            assert run(backend, job)[0] == ExitStatus(0)
            found.append(output(folder))

        first, second = found
        folder = str(tmp_path / "job0")
        assert first.pop("random") != second.pop("random")
        assert first == {
            "cwd": [folder, folder],
            "argv": ["--component_module_path", first["argv"][1]],
            "main": "kfp.dsl.executor_main",
            "stdin": "",
            "word": "two\nlines",
            "ours": [],
            "runtime": "true",
            "gpus": "",
            "group": True,
            "handlers": [True, True, True],
            "same": True,
            "executable": True,
            "prefect": False,
        }

    def test_lines_come_in_order_and_as_they_come(self, backend: Backend, tmp_path: Path) -> None:
        source = """
def run() -> str:
    import os, sys, time
    print("a", end="")
    os.write(1, b"b")
    print("c", file=sys.stderr)
    os.system("echo d")
    print("waiting")
    while not os.path.exists("go"):
        time.sleep(0.01)
    sys.stdout.write("no end")
    return ""
"""
        folder = tmp_path / "job"
        lines: list[str] = []

        def told(line: str) -> None:
            lines.append(line)
            if line == "waiting":
                (folder / "go").touch()

        assert backend.run(python(folder, source), told, threading.Event()) == ExitStatus(0)
        said = [line for line in lines if not line.startswith((" ", "{", "}", "[KFP"))]
        assert said[:3] == ["abc", "d", "waiting"]
        assert any(line.startswith("no end") for line in lines)

    @pytest.mark.parametrize(
        ("body", "code", "reason"),
        [
            ("raise ValueError('boom')", 1, "It ended with exit status 1: ValueError: boom"),
            ("import sys; sys.exit(7)", 7, "It ended with exit status 7"),
            ("import sys; sys.exit('text')", 1, "It ended with exit status 1: text"),
            ("import os; os.abort()", -6, "It ended with signal SIGABRT"),
            ("import os; os._exit(9)", 9, "It ended with exit status 9"),
        ],
    )
    def test_it_fails(
        self, backend: Backend, tmp_path: Path, body: str, code: int, reason: str
    ) -> None:
        ended, _ = run(backend, python(tmp_path / "job", f"def run():\n    {body}\n"))

        assert ended.code == code
        assert ended.reason.startswith(reason)

    @pytest.mark.parametrize(
        ("image", "told"), [("example/torch:2", True), ("python:3.11", False)]
    )
    def test_its_image_may_have_what_is_missing(
        self, backend: Backend, tmp_path: Path, image: str, told: bool
    ) -> None:
        job = python(tmp_path / "job", "def run():\n    import surely_nowhere\n")
        ended, _ = run(backend, dataclasses.replace(job, image=image))

        hint = ". The image example/torch:2, which may have it, is not used"
        assert ended.reason.startswith("It ended with exit status 1: ModuleNotFoundError")
        assert (hint in ended.reason) is told

    def test_what_it_has_registered_for_its_end_is_done(
        self, backend: Backend, tmp_path: Path
    ) -> None:
        source = """
def run():
    import atexit, threading, time
    def late():
        time.sleep(0.2)
        open("thread", "w").close()
    atexit.register(lambda: open("atexit", "w").close())
    threading.Thread(target=late).start()
"""
        assert run(backend, python(tmp_path / "job", source))[0] == ExitStatus(0)
        assert (tmp_path / "job" / "thread").exists()
        assert (tmp_path / "job" / "atexit").exists()

    @pytest.mark.parametrize(
        "packages",
        [
            "'kfp==2.1.3' '--no-deps' 'typing-extensions>=3.7.4,<5; python_version<\"3.9\"'",
            "'kfp==2.0.0-beta.14' '--no-deps'",
        ],
    )
    def test_an_older_executor_is_not_used(
        self, backend: Backend, tmp_path: Path, packages: str
    ) -> None:
        source = "def run() -> str:\n    import kfp\n    return kfp.__version__\n"
        ended, lines = run(backend, python(tmp_path / "job", source, packages))

        assert ended == ExitStatus(0), lines
        assert output(tmp_path / "job") == importlib.metadata.version("kfp")

    def test_its_source_is_as_it_was_written(self, backend: Backend, tmp_path: Path) -> None:
        source = "def run() -> str:\n    return 'python3 -m pip $0 kfp==2.0.0'  # \\u00e4\n"
        ended, lines = run(backend, python(tmp_path / "job", source))

        assert ended == ExitStatus(0), lines
        assert output(tmp_path / "job") == "python3 -m pip $0 kfp==2.0.0"

    def test_what_it_installs_is_its_own(self, backend: Backend, tmp_path: Path) -> None:
        package = tmp_path / "package"
        package.mkdir()
        _wheel(package)
        source = f"""
def run() -> str:
    import importlib.util, subprocess, sys
    before = importlib.util.find_spec("modelyard_sample") is not None
    subprocess.run([sys.executable, "-m", "pip", "install", "--no-index", "-q",
                    "{package}/modelyard_sample-1-py3-none-any.whl"], check=True)
    importlib.invalidate_caches()
    import modelyard_sample
    return f"{{before}} {{modelyard_sample.WORD}}"
"""
        for number in range(2):
            folder = tmp_path / f"job{number}"
            ended, lines = run(backend, python(folder, source))
            assert ended == ExitStatus(0), lines
            assert output(folder) == "False here"

    def test_nothing_runs_after_a_stop(self, backend: Backend, tmp_path: Path) -> None:
        source = f"""
def run():
    import subprocess
    subprocess.run(["sh", "-c", {DETACHED!r}, "sh", "pid"])
"""
        cancelled = threading.Event()
        folder = tmp_path / "job"
        with ThreadPoolExecutor(1) as pool:
            ending = pool.submit(backend.run, python(folder, source), print, cancelled)
            child = pid_in(folder / "pid")
            cancelled.set()
            ended = ending.result()

        assert ended.reason == "It was stopped."
        assert not runs(child)

    def test_processes_of_its_own(self, backend: Backend, tmp_path: Path) -> None:
        source = """
def run() -> list:
    import multiprocessing, operator
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        return pool.starmap(operator.add, [(1, 2), (3, 4)])
"""
        ended, lines = run(backend, python(tmp_path / "job", source))

        assert ended == ExitStatus(0), lines
        assert output(tmp_path / "job") == [3, 7]

    def test_a_bootstrap_that_is_not_understood_runs_as_it_is(
        self, backend: Backend, tmp_path: Path
    ) -> None:
        job = shell(tmp_path / "job", "python3 -m pip --version; command -v pip python3")

        ended, lines = run(backend, job)

        assert ended == ExitStatus(0)
        assert str(sys.prefix) not in " ".join(lines)
        assert lines[1].endswith("/bin/pip")


def _wheel(folder: Path) -> None:
    """A package as small as can be."""
    import zipfile

    with zipfile.ZipFile(folder / "modelyard_sample-1-py3-none-any.whl", "w") as file:
        info = "modelyard_sample-1.dist-info"
        file.writestr("modelyard_sample.py", "WORD = 'here'\n")
        file.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: modelyard-sample\nVersion: 1\n"
        )
        file.writestr(
            f"{info}/WHEEL",
            "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        file.writestr(
            f"{info}/RECORD",
            f"modelyard_sample.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n",
        )


class TestWarmth:
    @pytest.fixture
    def backend(
        self, environments: EnvironmentCache, settings: Settings
    ) -> Iterator[ComponentProcessBackend]:
        backend = ComponentProcessBackend(environments, settings)
        yield backend
        backend.close()

    _PARENTS = """
def run() -> list:
    import os
    def parent(pid):
        with open(f"/proc/{pid}/stat") as file:
            return int(file.read().rpartition(")")[2].split()[1])
    leash = os.getppid()
    return [os.getpid(), leash, parent(leash)]
"""

    def _parents(self, backend: Backend, job: Workload) -> list[int]:
        assert run(backend, job)[0] == ExitStatus(0)
        found: list[int] = output(job.folder)
        return found

    def test_components_are_forks_of_one_interpreter(
        self, backend: Backend, tmp_path: Path
    ) -> None:
        jobs = [python(tmp_path / f"job{number}", self._PARENTS) for number in range(3)]
        found = [self._parents(backend, job) for job in jobs]

        assert len({pid for pid, _, _ in found}) == 3
        (server,) = {server for _, _, server in found}
        assert "warm_interpreter.py" in " ".join(psutil.Process(server).cmdline())

    def test_lines_are_the_components_own(self, backend: Backend, tmp_path: Path) -> None:
        source = (
            "def run() -> int:\n    import logging\n    logging.info('informed')\n"
            "    logging.warning('warned')\n    print('printed')\n    return 1\n"
        )
        _, lines = run(backend, python(tmp_path / "job", source))

        assert [line.rpartition(": ")[2] for line in lines if "environment" not in line] == [
            "informed", "warned", "printed",
        ]  # fmt: skip

    def test_what_counts_only_when_an_interpreter_starts_is_heeded(
        self, backend: Backend, tmp_path: Path
    ) -> None:
        source = "def run() -> int:\n    import sys\n    return sys.flags.optimize\n"
        run(backend, python(tmp_path / "job", source, environment={"PYTHONOPTIMIZE": "2"}))

        assert output(tmp_path / "job") == 2

    def test_an_interpreter_that_was_killed_is_replaced(
        self, backend: Backend, tmp_path: Path
    ) -> None:
        _, _, first = self._parents(backend, python(tmp_path / "job1", self._PARENTS))
        os.kill(first, signal.SIGKILL)
        eventually(lambda: not runs(first), "it is gone")

        _, _, second = self._parents(backend, python(tmp_path / "job2", self._PARENTS))
        assert second != first
        assert "warm_interpreter.py" in " ".join(psutil.Process(second).cmdline())

    def test_an_interpreter_keeps_its_environment(
        self, tmp_path: Path, settings: Settings
    ) -> None:
        kept = EnvironmentCache(tmp_path / "environments", most=0)
        backend = ComponentProcessBackend(kept, settings)
        assert run(backend, python(tmp_path / "job1", _ANSWER))[0] == ExitStatus(0)
        kept.prune()
        assert len(list(kept.root.glob("*/modelyard-ready"))) == 1

        backend.close()
        kept.prune()
        assert list(kept.root.glob("*/modelyard-ready")) == []

    def test_an_idle_interpreter_is_ended(
        self, environments: EnvironmentCache, settings: Settings, tmp_path: Path
    ) -> None:
        backend = ComponentProcessBackend(environments, settings, idle_seconds=0.1)
        _, _, server = self._parents(backend, python(tmp_path / "job1", self._PARENTS))
        eventually(lambda: not runs(server), "it is ended")

        self._parents(backend, python(tmp_path / "job2", self._PARENTS))
        backend.close()

    def test_a_component_larger_than_a_command_line_can_be(
        self, backend: Backend, tmp_path: Path
    ) -> None:
        job = python(tmp_path / "job", _ANSWER + "# " + "x" * 300_000)
        job = dataclasses.replace(job, arguments=(*job.arguments, "y" * 300_000))

        assert run(backend, job)[0] == ExitStatus(0)

    def test_everything_ends_with_an_owner_that_was_killed(
        self, environments: EnvironmentCache, tmp_path: Path
    ) -> None:
        source = """
def run():
    import os, time
    open("pid", "w").write(str(os.getpid()))
    time.sleep(600)
"""
        job = python(tmp_path / "job", source)
        owner = f"""
import sys, threading
sys.path.insert(0, {str(_ROOT)!r})
from pathlib import Path, PosixPath
from infra.settings import Settings
from infra.workloads.environments import EnvironmentCache
from infra.workloads.base import Workload, ResourceRequest
from infra.workloads.local_objects import LocalObjects
from infra.workloads.mounts import impossible
from pipelines.backends.process import ComponentProcessBackend
backend = ComponentProcessBackend(EnvironmentCache(Path({str(environments.root)!r})), Settings())
backend.run({job!r}, print, threading.Event())
"""
        process = subprocess.Popen([sys.executable, "-c", owner], stdout=subprocess.DEVNULL)
        child = pid_in(tmp_path / "job" / "pid")
        leash = psutil.Process(child).parent()
        assert leash is not None
        server = leash.parent()
        assert server is not None
        process.kill()
        process.wait()
        eventually(lambda: not runs(child) and not runs(server.pid), "everything has ended")
