from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path

import pytest

from infra.errors import BadInputError
from pipelines import environments
from pipelines.bootstrap import Install
from pipelines.environments import Environment, Environments, StoppedError
from tests.processes import eventually, runs

pytestmark = pytest.mark.integration

_ROOT = Path(__file__).parents[2]
_NEVER = threading.Event()
_KFP = f"kfp=={metadata.version('kfp')}"


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    if not request.node.get_closest_marker("e2e"):
        monkeypatch.setenv("PIP_NO_INDEX", "1")


@pytest.fixture
def kept(tmp_path: Path) -> Environments:
    return Environments(tmp_path / "environments")


@pytest.fixture
def package(tmp_path: Path) -> Callable[..., Install]:
    """Makes packages: what installs one of them, called sample-NAME."""

    def made(name: str, *, options: Sequence[str] = (), needs: str = "") -> Install:
        path = tmp_path / f"sample_{name}-1-py3-none-any.whl"
        info = f"sample_{name}-1.dist-info"
        requires = f"Requires-Dist: {needs}\n" if needs else ""
        files = {
            f"sample_{name}.py": f"NAME = {name!r}\n",
            f"{info}/METADATA": f"Metadata-Version: 2.1\nName: sample-{name}\nVersion: 1\n"
            f"{requires}",
            f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\n"
            "Tag: py3-none-any\n",
        }
        files[f"{info}/RECORD"] = "".join(f"{one},,\n" for one in [*files, f"{info}/RECORD"])
        with zipfile.ZipFile(path, "w") as file:
            for one, text in files.items():
                file.writestr(one, text)
        return Install((str(path),), tuple(options))

    return made


def _use(kept: Environments, *installs: Install, log: list[str] | None = None) -> Path:
    told = [] if log is None else log
    with kept.using(installs, told.append, _NEVER) as environment:
        return environment.folder


def _says(environment: Environment | Path, code: str) -> str:
    folder = environment if isinstance(environment, Path) else environment.folder
    return subprocess.run(
        [str(folder / "bin" / "python3"), "-c", code],
        check=True, capture_output=True, text=True, env={},
    ).stdout.strip()  # fmt: skip


def _folders(kept: Environments) -> set[str]:
    return {path.name for path in kept.root.iterdir() if path.is_dir()} - {"jobs"}


class TestUsing:
    def test_nothing_of_ours_is_in_it(self, kept: Environments) -> None:
        folder = _use(kept)

        assert _says(folder, "import sys; print(sys.prefix)") == str(folder)
        assert _says(
            folder,
            "from importlib.metadata import distributions as d;"
            "print([one.metadata['Name'] for one in d()])",
        ) == "['pip']"  # fmt: skip
        assert _says(folder, "import sys; print(sys.version)") == sys.version

    def test_it_is_made_once(self, kept: Environments, package: Callable[..., Install]) -> None:
        log: list[str] = []
        install = package("one")
        first = _use(kept, install, log=log)
        told = list(log)
        second = _use(kept, install, log=log)

        assert first == second
        assert log == told
        assert told[0].startswith("Installing /")
        assert told[-1].startswith("An environment was made in ")
        assert _says(first, "import sample_one; print(sample_one.NAME)") == "one"

    def test_what_is_installed_decides_which_it_is(
        self, kept: Environments, package: Callable[..., Install]
    ) -> None:
        (one,), (two,) = package("one").requirements, package("two").requirements
        both = _use(kept, Install((one, two)))

        assert _use(kept, Install((two, one))) == both
        assert _use(kept, Install((one,))) != both
        assert _use(kept, Install((one,)), Install((two,))) != both
        assert _use(kept, Install((one, two), ("--no-deps",))) != both

    def test_installs_come_in_order(
        self, kept: Environments, package: Callable[..., Install]
    ) -> None:
        needed = package("needed")
        folder = _use(kept, needed, package("needing", needs="sample-needed"))

        assert _says(folder, "import sample_needing, sample_needed; print(1)") == "1"

    def test_kfp_of_a_version_that_is_there_is_not_downloaded(self, kept: Environments) -> None:
        extensions = 'no-such-package>=3; python_version<"3.9"'
        log: list[str] = []
        folder = _use(kept, Install((_KFP, extensions), ("--no-deps",)), log=log)
        assert not any(line.startswith("Installing") for line in log)

        code = "import kfp, kfp.dsl.executor_main; print(kfp.__version__, kfp.__file__)"
        version, _, file = subprocess.run(
            [str(folder / "bin" / "python3"), "-c", code],
            check=True, capture_output=True, text=True, env={"_KFP_RUNTIME": "true"},
        ).stdout.partition(" ")  # fmt: skip
        assert f"kfp=={version}" == _KFP
        assert file.startswith(str(folder))

    def test_what_was_installed_once_serves_other_environments(
        self, kept: Environments, package: Callable[..., Install]
    ) -> None:
        # Not by a path: pip marks those, as they may hold something else the next time.
        first = _use(kept, package("one"))
        with pytest.raises(BadInputError):
            _use(kept, Install(("sample-one==1",), ("--no-deps",)))
        next(first.glob("lib/*/site-packages/sample_one-1.dist-info/direct_url.json")).unlink()

        folder = _use(kept, Install(("sample-one==1",), ("--no-deps",)), package("two"))

        assert _says(folder, "import sample_one, sample_two; print(1)") == "1"

    @pytest.mark.parametrize(
        "install",
        [
            Install(("no-such-package==1",)),
            Install((_KFP.replace("==", "==9."),), ("--no-deps",)),
            Install(("sample_one-1.whl",)),
            Install(("not a requirement",)),
        ],
    )
    def test_what_cannot_be_installed_leaves_nothing(
        self, kept: Environments, install: Install
    ) -> None:
        with pytest.raises(BadInputError) as caught:
            _use(kept, install)
        assert caught.value.code == "RequirementsNotInstallable"
        assert install.requirements[0] in caught.value.message
        assert "ERROR" in caught.value.message
        assert _folders(kept) == set()

    def test_a_password_of_an_index_is_told_to_nobody(self, kept: Environments) -> None:
        log: list[str] = []
        with pytest.raises(BadInputError) as caught:
            _use(kept, Install(("sample @ http://me:hidden@127.0.0.1:9/s.whl",)), log=log)
        assert "hidden" not in str(caught.value)
        assert "hidden" not in "".join(log)

    def test_threads_that_want_the_same_make_one(
        self, kept: Environments, package: Callable[..., Install]
    ) -> None:
        install = package("one")
        log: list[str] = []
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda _: _use(kept, install, log=log), range(4)))

        assert len(set(found)) == 1
        assert len([line for line in log if line.startswith("Installing")]) == 1

    def test_processes_that_want_the_same_make_one(
        self, kept: Environments, package: Callable[..., Install]
    ) -> None:
        code = _program(kept, package("one"), "print(environment.folder)")
        started = [
            subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
            for _ in range(3)
        ]
        said = "".join(one.communicate()[0] for one in started)

        assert [one.returncode for one in started] == [0, 0, 0]
        assert said.count("Installing") == 1
        assert len(_folders(kept)) == 1

    def test_a_stop_while_it_is_made(self, kept: Environments, slow: Install) -> None:
        cancelled = threading.Event()
        with ThreadPoolExecutor(2) as pool:
            making = pool.submit(self._entered, kept, slow, cancelled)
            eventually((kept.root.parent / "pid").exists, "it is being made")
            waiting = pool.submit(self._entered, kept, slow, cancelled)
            cancelled.set()
            for one in (making, waiting):
                with pytest.raises(StoppedError):
                    one.result()
        assert _folders(kept) == set()
        assert not runs(int((kept.root.parent / "pid").read_text()))

    @staticmethod
    def _entered(kept: Environments, install: Install, cancelled: threading.Event) -> None:
        with kept.using([install], print, cancelled):
            pass

    def test_one_that_was_killed_while_it_was_made_is_made_anew(
        self, kept: Environments, slow: Install
    ) -> None:
        code = _program(kept, slow, "pass")
        maker = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL)
        pid = kept.root.parent / "pid"
        eventually(lambda: pid.exists() and pid.read_text(), "it is being made")
        (half,) = _folders(kept)
        (kept.root / half / "rubbish").touch()
        maker.kill()
        maker.wait()
        eventually(lambda: not runs(int(pid.read_text())), "pip ends with its owner")

        (kept.root.parent / "go").touch()
        folder = _use(kept, slow)

        assert folder.name == half
        assert not (folder / "rubbish").exists()
        assert _says(folder, "import slow; print(slow.WORD)") == "made"


def _program(kept: Environments, install: Install, then: str) -> str:
    return f"""
import sys, threading
sys.path.insert(0, {str(_ROOT)!r})
from pathlib import Path
from pipelines.bootstrap import Install
from pipelines.environments import Environments
told = lambda line: print(line, flush=True)
with Environments(Path({str(kept.root)!r})).using([{install!r}], told, threading.Event()) as environment:
    {then}
"""  # noqa: E501


@pytest.fixture
def slow(tmp_path: Path) -> Install:
    """A package whose building waits until the file ``go`` is there."""
    source = tmp_path / "slow"
    source.mkdir()
    (source / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    )
    (source / "backend.py").write_text(f"""
import os, time, zipfile
def build_wheel(folder, config_settings=None, metadata_directory=None):
    with open({str(tmp_path / "pid")!r}, "w") as file:
        file.write(str(os.getpid()))
    while not os.path.exists({str(tmp_path / "go")!r}):
        time.sleep(0.02)
    name = "slow-1-py3-none-any.whl"
    info = "slow-1.dist-info"
    with zipfile.ZipFile(os.path.join(folder, name), "w") as file:
        file.writestr("slow.py", "WORD = 'made'")
        file.writestr(info + "/METADATA", "Metadata-Version: 2.1\\nName: slow\\nVersion: 1\\n")
        file.writestr(info + "/WHEEL", "Wheel-Version: 1.0\\nGenerator: x\\n"
                      "Root-Is-Purelib: true\\nTag: py3-none-any\\n")
        file.writestr(info + "/RECORD", "slow.py,,\\n")
    return name
""")
    return Install((str(source),))


class TestOverlay:
    def test_it_sees_the_environment_and_keeps_what_is_installed_to_itself(
        self, kept: Environments, package: Callable[..., Install]
    ) -> None:
        (wheel,) = package("two").requirements
        with (
            kept.using([package("one")], print, _NEVER) as environment,
            kept.overlay(environment) as first,
            kept.overlay(environment) as second,
        ):
            assert _says(first, "import sample_one; print(sample_one.NAME)") == "one"
            subprocess.run([str(first.programs / "pip"), "install", "-q", wheel], check=True)
            assert _says(first, "import sample_two; print(sample_two.NAME)") == "two"
            look = "import importlib.util as u; print(u.find_spec('sample_two'))"
            assert _says(second, look) == "None"
            assert _says(environment, look) == "None"
            assert _says(second, "import sys; print(sys.prefix)") == str(second.folder)
        assert list((kept.root / "jobs").iterdir()) == []


class TestPrune:
    def test_the_longest_unused_are_removed_and_none_that_is_in_use(self, tmp_path: Path) -> None:
        kept = Environments(tmp_path / "environments", most=1)
        with kept.using([], print, _NEVER) as used:
            old = _ready(kept, "old", seconds=100)
            new = _ready(kept, "new", seconds=1)
            os.utime(used.folder / "modelyard-ready", (0, 0))
            kept.prune()

            assert _folders(kept) == {used.folder.name, new.name}
            assert not old.with_name("old.lock").exists()
        kept.prune()
        assert _folders(kept) == {new.name}

    def test_those_of_long_ago_are_removed(self, tmp_path: Path) -> None:
        kept = Environments(tmp_path / "environments", days=2)
        _ready(kept, "old", seconds=3 * 86400)
        _ready(kept, "new", seconds=86400)
        kept.prune()

        assert _folders(kept) == {"new"}

    def test_to_use_one_makes_it_the_newest(self, kept: Environments) -> None:
        folder = _use(kept)
        os.utime(folder / "modelyard-ready", (0, 0))
        _use(kept)

        assert (folder / "modelyard-ready").stat().st_mtime > time.time() - 3600

    def test_who_uses_one_first_prunes(self, kept: Environments) -> None:
        _use(kept)
        _ready(kept, "old", seconds=100 * 86400)
        _use(kept)
        assert "old" in _folders(kept)

        _use(Environments(kept.root))
        assert "old" not in _folders(kept)

    def test_making_one_prunes(self, tmp_path: Path) -> None:
        kept = Environments(tmp_path / "environments", most=1)
        _ready(kept, "old", seconds=100)
        _use(kept)

        assert "old" not in _folders(kept)

    def test_what_jobs_that_were_killed_have_left_is_removed(self, kept: Environments) -> None:
        code = _program(
            kept,
            Install(()),
            "overlay = Environments(Path(environment.folder.parent)).overlay(environment)\n"
            "    print(overlay.__enter__().folder, flush=True); sys.stdin.read()",
        )
        owner = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert owner.stdout is not None
        said = iter(owner.stdout)
        left = Path(next(line for line in said if "/jobs/" in line).strip())
        os.utime(left, (0, 0))
        kept.prune()
        assert left.exists()

        owner.send_signal(signal.SIGKILL)
        owner.communicate()
        kept.prune()
        assert list((kept.root / "jobs").iterdir()) == []


def _ready(kept: Environments, name: str, seconds: float) -> Path:
    folder = kept.root / name
    folder.mkdir(parents=True)
    mark = folder / "modelyard-ready"
    mark.touch()
    os.utime(mark, (time.time() - seconds,) * 2)
    return folder


class TestInstaller:
    @pytest.fixture
    def uv(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
        """uv, beside the interpreter, where pip has no settings of its own."""
        program = tmp_path / "bin" / "uv"
        program.parent.mkdir()
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(program.with_name("python")))
        for name in list(os.environ):
            if name.startswith("PIP_"):
                monkeypatch.delenv(name)
        monkeypatch.setattr(environments, "_pip_files", lambda: iter(()))
        return str(program)

    def test_uv_where_it_is_there(self, uv: str) -> None:
        install = Install(
            ("a==1",),
            (f"--{'index'}-url", "https://x/simple", f"--{'trusted'}-host", "x", "--pre"),
        )
        command = environments._command(Path("/e"), install, ["a==1"])

        assert command[:5] == [uv, "pip", "install", "--python", "/e/bin/python3"]
        rest = ["https://x/simple", "--allow-insecure-host", "x", "--prerelease", "allow", "a==1"]
        assert command[-6:] == rest

    @pytest.mark.parametrize("name", ["INDEX_URL", "NO_INDEX", "CONFIG_FILE"])
    @pytest.mark.usefixtures("uv")
    def test_pip_where_it_has_settings(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        monkeypatch.setenv(f"PIP_{name}", "x")
        command = environments._command(Path("/e"), Install(("a",), ("--pre",)), ["a"])

        assert command[:4] == ["/e/bin/python3", "-m", "pip", "install"]
        assert command[-2:] == ["--pre", "a"]


@pytest.mark.e2e
def test_kfp_from_the_package_index(kept: Environments) -> None:
    """A version that is not ours, as the compiler of another time has pinned it."""
    log: list[str] = []
    install = Install(
        ("kfp==2.14.3", 'typing-extensions>=3.7.4,<5; python_version<"3.9"'), ("--no-deps",)
    )
    folder = _use(kept, install, log=log)

    assert log[0] == "Installing kfp==2.14.3"
    code = "import kfp.dsl.executor_main; print(kfp.__version__)"
    found = subprocess.run(
        [str(folder / "bin/python3"), "-c", code],
        check=True, capture_output=True, text=True, env={"_KFP_RUNTIME": "true"},
    )  # fmt: skip
    assert found.stdout == "2.14.3\n"
    other = _use(kept, install, Install(("six",)))
    assert other != folder
