from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from infra import forkclient, forked, run_lock
from infra.home import Home
from tests.locks import holding
from tests.processes import eventually, pid_in, runs

pytestmark = pytest.mark.integration

_CLIENT = forkclient.__file__
_MODULES = {
    "shows": """
import json, os, sys, time
print(json.dumps({"name": __name__, "argv": sys.argv, "cwd": os.getcwd(), "read": sys.stdin.read(),
                  "colour": os.environ.get("COLOUR"), "servers": os.environ.get("SERVERS"),
                  "region": os.environ.get("MODELYARD_REGION"),
                  "unheeded": os.environ.get("MODELYARD_UNHEEDED"),
                  "epoch": time.strftime("%H %Z", time.localtime(0)),
                  "leads": os.getsid(0) == os.getpid()}))
print("problem", file=sys.stderr)
""",
    "leaves": """
import sys
exec(sys.argv[1])
""",
    "waits": """
import os, pathlib, signal, sys, time
def on_signal(number, _frame):
    pathlib.Path("got").write_text(str(number))
    sys.exit(7)
if sys.argv[1] == "handles":
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, on_signal)
if sys.argv[1] == "ignores":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
pathlib.Path("pid").write_text(str(os.getpid()))
while True:
    time.sleep(0.05)
""",
    "meets": """
import pathlib, sys, time
pathlib.Path(sys.argv[1]).touch()
while not pathlib.Path(sys.argv[2]).exists():
    time.sleep(0.02)
""",
    "finishes": """
import atexit, sys, threading, time
atexit.register(lambda: print("at exit"))
def late():
    time.sleep(0.2)
    print("thread")
threading.Thread(target=late).start()
sys.stdout.write("main ")
""",
    "threaded": """
import threading, time
threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
""",
}
_SHORT_GRACE = "import sys, infra.forkserver as f; f._GRACE_SECONDS = 0.2; f.main(sys.argv[1], [])"

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="modelyard-") as name:
        modules = Path(name) / "modules"
        modules.mkdir()
        for module, text in _MODULES.items():
            (modules / f"{module}.py").write_text(text)
        yield Path(name)


def _environment(folder: Path, **more: str) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        # With Modelyard's own folder, or its client would leave out what PYTHONPATH has.
        "PYTHONPATH": os.pathsep.join([str(folder / "modules"), str(Path(_CLIENT).parents[1])]),
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
        **more,
    }


def _serve(folder: Path, path: Path, *arguments: str) -> subprocess.Popen[str]:
    server = subprocess.Popen(
        [sys.executable, "-P", *arguments],
        env=_environment(folder, SERVERS="own", MODELYARD_REGION="stack"),
        cwd=folder,
    )
    eventually(lambda: forked.accepts(path) or server.poll() is not None, "the server listens")
    return server


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Path]:
    path = folder / "fork.sock"
    process = _serve(folder, path, "-m", "infra.forkserver", str(path), "json")
    yield path
    process.terminate()
    assert process.wait(30) == 0


@pytest.fixture
def start(folder: Path, server: Path, tmp_path: Path) -> Iterator[Start]:
    started: list[subprocess.Popen[str]] = []

    def popen(
        *arguments: str, env: Mapping[str, str] | None = None, path: Path = server
    ) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", _CLIENT, str(path), *arguments],
            env=_environment(folder, **(env or {})),
            cwd=tmp_path,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield popen
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def run(start: Start) -> Run:
    def completed(
        *arguments: str, given: str = "", env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        process = start(*arguments, env=env)
        out, err = process.communicate(given, timeout=30)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    return completed


def test_a_module_runs_as_if_started_by_the_client(run: Run, tmp_path: Path) -> None:
    done = run(
        "shows",
        "--flag",
        "two words",
        given="given",
        env={
            "COLOUR": "blue",
            "TZ": "Asia/Seoul",
            "MODELYARD_REGION": "shell",
            "MODELYARD_NAS": '{"n": "/n"}',
            "MODELYARD_HOME": "elsewhere",
            "MODELYARD_GPUS": "",
        },
    )

    assert done.returncode == 0
    assert done.stderr == "problem\n"
    found = json.loads(done.stdout)
    assert found.pop("argv")[1:] == ["--flag", "two words"]
    assert found == {
        "name": "__main__",
        "cwd": str(tmp_path),
        "read": "given",
        "colour": "blue",
        "servers": None,
        "region": "stack",  # a setting, and so the stack's
        "unheeded": "MODELYARD_NAS, MODELYARD_REGION",
        "epoch": "09 KST",
        "leads": True,
    }


@pytest.mark.parametrize(
    ("code", "status", "said"),
    [
        ("pass", 0, ""),
        ("sys.exit()", 0, ""),
        ("sys.exit(3)", 3, ""),
        ("sys.exit(True)", 1, ""),
        ("sys.exit(-1)", 255, ""),
        ("sys.exit(256)", 0, ""),
        ("sys.exit('out of paint')", 1, "out of paint\n"),
        ("sys.exit(['a'])", 1, "['a']\n"),
        ("raise ValueError('odd')", 1, "ValueError: odd\n"),
        ("raise KeyboardInterrupt", 1, "KeyboardInterrupt\n"),
        ("import os; os.kill(os.getpid(), 9)", 137, ""),
    ],
)
def test_the_client_ends_with_the_modules_status(
    run: Run, code: str, status: int, said: str
) -> None:
    done = run("leaves", code)

    assert done.returncode == status
    assert done.stderr.endswith(said)
    assert done.stderr or not said


def test_a_module_that_is_missing_fails(run: Run) -> None:
    done = run("nowhere_to_be_found")

    assert done.returncode == 1
    assert "nowhere_to_be_found" in done.stderr


def test_threads_exit_functions_and_buffers_are_finished(run: Run) -> None:
    assert run("finishes").stdout == "main thread\nat exit\n"


def test_several_run_at_once(start: Start) -> None:
    one = start("meets", "left", "right")
    other = start("meets", "right", "left")

    assert one.wait(30) == 0
    assert other.wait(30) == 0


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_are_passed_on(start: Start, tmp_path: Path, signum: signal.Signals) -> None:
    client = start("waits", "handles")
    pid_in(tmp_path / "pid")

    client.send_signal(signum)

    assert client.wait(30) == 7
    assert (tmp_path / "got").read_text() == str(int(signum))


def test_a_signal_that_is_not_handled_ends_both(start: Start, tmp_path: Path) -> None:
    client = start("waits", "plainly")
    pid = pid_in(tmp_path / "pid")

    client.terminate()

    assert client.wait(30) == 137
    eventually(lambda: not runs(pid), "the forked process ends")


def test_death_of_the_client_ends_the_forked_process(start: Start, tmp_path: Path) -> None:
    client = start("waits", "handles")
    pid = pid_in(tmp_path / "pid")

    client.kill()

    eventually(lambda: not runs(pid), "the forked process ends")
    assert (tmp_path / "got").read_text() == str(int(signal.SIGTERM))


def test_a_forked_process_that_ignores_the_end_is_killed(
    folder: Path, start: Start, tmp_path: Path
) -> None:
    path = folder / "short.sock"
    process = _serve(folder, path, "-c", _SHORT_GRACE, str(path))
    try:
        client = start("waits", "ignores", path=path)
        pid = pid_in(tmp_path / "pid")

        client.kill()

        eventually(lambda: not runs(pid), "the forked process is killed")
    finally:
        process.terminate()
        process.wait(30)


def test_death_of_the_clients_owner_ends_both(folder: Path, server: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-I", "-S", _CLIENT, str(server), "waits", "handles"]
    owner_script = (
        "import pathlib, subprocess, time;"
        f"client = subprocess.Popen({command!r});"
        "pathlib.Path('client').write_text(str(client.pid)); time.sleep(600)"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", owner_script], cwd=tmp_path, env=_environment(folder)
    )
    forked_pid, client_pid = pid_in(tmp_path / "pid"), pid_in(tmp_path / "client")

    owner.kill()
    owner.wait(30)

    eventually(lambda: not runs(client_pid), "the client ends")
    eventually(lambda: not runs(forked_pid), "the forked process ends")


def test_the_server_outlives_callers_that_speak_another_language(server: Path, run: Run) -> None:
    for said in (b"", b"\0\0\0\x02[]", b"\0\0\0\x04nope", b"\0\0\0\x02{}", b"\0\0\x10\0short"):
        with socket.socket(socket.AF_UNIX) as caller:
            caller.connect(str(server))
            caller.sendall(said)

    assert run("leaves", "sys.exit(3)").returncode == 3


def test_only_its_user_may_use_it(server: Path) -> None:
    assert server.stat().st_mode & 0o777 == 0o600


def test_the_server_ends_after_the_last_forked_process(
    folder: Path, start: Start, tmp_path: Path
) -> None:
    path = folder / "ending.sock"
    process = _serve(folder, path, "-m", "infra.forkserver", str(path))
    client = start("waits", "handles", path=path)
    pid = pid_in(tmp_path / "pid")

    process.terminate()
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.5)
    assert runs(pid)
    client.terminate()

    assert client.wait(30) == 7
    assert process.wait(30) == 0


def test_an_import_that_starts_a_thread_is_refused(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "infra.forkserver", str(folder / "no.sock"), "threaded"],
        env=_environment(folder),
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.returncode == 1
    assert "an import started threads" in done.stderr


@pytest.mark.parametrize("stale", [True, False])
def test_without_a_server_the_client_runs_the_module_itself(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stale: bool
) -> None:
    path = tmp_path / "s"
    if stale:
        monkeypatch.chdir(tmp_path)
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind("s")
    client = (
        f"import sys; sys.path.insert(0, {str(Path(_CLIENT).parent)!r}); import forkclient;"
        "forkclient.PATIENCE_SECONDS = 0; sys.exit(forkclient.main(sys.argv[1], 'shows', ['x']))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", client, str(path)],
        env=_environment(folder, COLOUR="red"),
        cwd=tmp_path,
        input="given",
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["argv"][1:] == ["x"]
    assert (found["colour"], found["read"], found["cwd"]) == ("red", "given", str(tmp_path))


def test_the_command_line_goes_through_the_homes_socket(tmp_path: Path) -> None:
    home = Home(tmp_path)
    command = forked.forkserver_command(home, "some.module", "--flag")

    assert command[0] == sys.executable
    assert command[-3:] == [str(forked.socket_path(home)), "some.module", "--flag"]
    assert not forked.accepts(forked.socket_path(home))


class TestRunLock:
    """The lock that the client takes and the forked process has as well."""

    @pytest.fixture
    def lock(self, home: Home) -> Mapping[str, str]:
        return {run_lock.PATH_VARIABLE: str(run_lock.path(home, "run"))}

    def test_it_is_held_until_both_are_gone(
        self, home: Home, start: Start, tmp_path: Path, lock: Mapping[str, str]
    ) -> None:
        client = start("waits", "ignores", env=lock)
        pid = pid_in(tmp_path / "pid")
        assert run_lock.is_held(home, "run") is True

        client.kill()
        client.wait(30)
        assert run_lock.is_held(home, "run") is True

        os.kill(pid, signal.SIGKILL)
        eventually(lambda: run_lock.is_held(home, "run") is False, "it is free")

    def test_while_another_holds_it_nothing_is_run(
        self, home: Home, run: Run, tmp_path: Path, lock: Mapping[str, str]
    ) -> None:
        with holding(home, "run"):
            done = run("leaves", "open('begun', 'w')", env=lock)

        assert (done.returncode, done.stdout) == (
            0, "Nothing is run: another process executes this run.\n"
        )  # fmt: skip
        assert not (tmp_path / "begun").exists()

    def test_where_no_server_answers_the_client_keeps_it_as_the_module(
        self, home: Home, folder: Path, tmp_path: Path, lock: Mapping[str, str]
    ) -> None:
        script = (
            "import sys; sys.path.insert(0, sys.argv.pop(1)); import forkclient as f; "
            "f.PATIENCE_SECONDS = 0; f.main('/nowhere', 'waits', ['plainly'])"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(Path(_CLIENT).parent)], cwd=tmp_path,
            env=_environment(folder, **lock),
        )  # fmt: skip
        pid_in(tmp_path / "pid")
        assert run_lock.is_held(home, "run") is True

        process.kill()
        process.wait(30)

        assert run_lock.is_held(home, "run") is False
