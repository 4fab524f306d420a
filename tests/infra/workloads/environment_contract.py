"""What holds for environments on either base."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from infra.errors import BadInputError, DiskFullError
from infra.workloads import installer
from infra.workloads.environment_spec import BaseEnvironment, EnvironmentSpec, PipInstall
from infra.workloads.environments import EnvironmentCache
from infra.workloads.exit_status import ExitStatus
from infra.workloads.installer import InstallCancelledError
from tests.infra.workloads import packages
from tests.processes import eventually, pid_in, runs

ROOT = Path(__file__).parents[3]


def never() -> bool:
    return False


def evaluate(folder: Path, code: str) -> str:
    """What ``code`` prints in an environment."""
    done = subprocess.run(
        [str(folder / "bin" / "python3"), "-c", code],
        capture_output=True, text=True, env={}, cwd="/",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def program(cache: EnvironmentCache, spec: EnvironmentSpec, then: str) -> str:
    """Python that uses an environment, prints its progress lines and runs ``then``."""
    return f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path, PosixPath
from infra.workloads.environment_spec import BaseEnvironment, EnvironmentSpec, PipInstall
from infra.workloads.environments import EnvironmentCache
spec = EnvironmentSpec({spec.installs!r}, BaseEnvironment({spec.base.value!r}))
cache = EnvironmentCache(Path({str(cache.root)!r}))
with cache.using(spec, lambda line: print(line, flush=True), lambda: False) as environment:
    {then}
"""


class EnvironmentContract:
    """What an environment keeps, whatever it is based on.

    Attributes:
        base: The base.
    """

    base: BaseEnvironment

    @pytest.fixture
    def cache(self, tmp_path: Path) -> EnvironmentCache:
        return EnvironmentCache(tmp_path / "environments")

    def spec(self, *requirements: str | Path, file: Path | None = None) -> EnvironmentSpec:
        install = PipInstall(tuple(map(str, requirements)), file=file)
        return EnvironmentSpec((install,), self.base)

    def use(
        self, cache: EnvironmentCache, spec: EnvironmentSpec, log: list[str] | None = None
    ) -> Path:
        lines = [] if log is None else log
        with cache.using(spec, lines.append, never) as environment:
            return environment.folder

    @staticmethod
    def folders(cache: EnvironmentCache) -> set[str]:
        return {path.name for path in cache.root.glob("*/")} - {"jobs"}

    @pytest.fixture
    def slow(self, tmp_path: Path) -> EnvironmentSpec:
        """A package whose build waits until the file ``go`` is there."""
        return self.spec(packages.slow_source(tmp_path / "slow", tmp_path))

    def test_it_is_made_once_and_logs_its_progress(
        self, cache: EnvironmentCache, tmp_path: Path
    ) -> None:
        log: list[str] = []
        spec = self.spec(packages.wheel(tmp_path, "sample", "NAME = 'one'"))
        first = self.use(cache, spec, log)
        progress = list(log)
        second = self.use(cache, spec, log)

        assert first == second
        assert log == progress
        assert progress[0].startswith("Installing /")
        assert any(line.startswith("Installing collected packages") for line in progress)
        assert progress[-1].startswith("An environment was made in ")
        assert evaluate(first, "import sample; print(sample.NAME)") == "one"
        assert evaluate(first, "import sys; print(sys.prefix)") == str(first)

    def test_its_content_decides_which_it_is(
        self, cache: EnvironmentCache, tmp_path: Path
    ) -> None:
        one, two = packages.wheel(tmp_path, "one"), packages.wheel(tmp_path, "two")
        both = self.use(cache, self.spec(one, two))

        assert self.use(cache, self.spec(two, one)) == both
        assert self.use(cache, self.spec(one)) != both
        ordered = EnvironmentSpec((PipInstall((str(one),)), PipInstall((str(two),))), self.base)
        assert self.use(cache, ordered) != both
        packages.wheel(tmp_path, "one", "CHANGED = True")
        assert self.use(cache, self.spec(one, two)) != both

    def test_installs_come_in_order(self, cache: EnvironmentCache, tmp_path: Path) -> None:
        needed = packages.wheel(tmp_path, "needed")
        needing = packages.wheel(tmp_path, "needing", needs="needed")
        spec = EnvironmentSpec(
            (PipInstall((str(needed),)), PipInstall((str(needing),))), self.base
        )

        assert evaluate(self.use(cache, spec), "import needing, needed; print(1)") == "1"

    @pytest.mark.parametrize(
        "line",
        [
            "-e .",
            pytest.param("--editable=./", marks=pytest.mark.soak),
            pytest.param(".", marks=pytest.mark.soak),
            pytest.param("-r more/other.txt", marks=pytest.mark.soak),
        ],
    )
    def test_a_local_package_is_a_copy_keyed_by_its_content(
        self, cache: EnvironmentCache, tmp_path: Path, line: str
    ) -> None:
        def value(folder: str, content: str) -> str:
            source = packages.source(tmp_path / folder, "local", f"value = {content!r}")
            (source / "more").mkdir()
            (source / "more" / "other.txt").write_text("# those of the package\n-e .\n")
            (source / "requirements.txt").write_text(f"{line}\n")
            made = self.use(cache, self.spec(file=source / "requirements.txt"))
            shutil.rmtree(source)
            return evaluate(made, "import local; print(local.value)")

        assert value("one", "first") == "first"
        assert value("two", "first") == "first"
        assert value("three", "second") == "second"
        assert len(self.folders(cache)) == 2

    @pytest.mark.parametrize(
        "nested", [pytest.param(False, marks=pytest.mark.soak), pytest.param(True)]
    )
    def test_the_same_words_about_other_content_are_another_environment(
        self, cache: EnvironmentCache, tmp_path: Path, nested: bool
    ) -> None:
        answers = []
        for answer in ("1", "2"):
            folder = tmp_path / answer
            wheel = packages.wheel(folder / "wheels", "sample", f"ANSWER = {answer}")
            (folder / "base.txt").write_text(f"./wheels/{wheel.name}\n")
            file = folder / "requirements.txt"
            file.write_text("-r base.txt" if nested else f"./wheels/{wheel.name}")
            made = self.use(cache, self.spec(file=file))
            answers.append(evaluate(made, "import sample; print(sample.ANSWER)"))

        assert answers == ["1", "2"]

    @pytest.mark.parametrize(
        "text",
        [
            "no-such-package==1",
            "sample_one-1.whl",
            pytest.param("not a requirement", marks=pytest.mark.soak),
        ],
    )
    def test_requirements_that_cannot_be_installed_are_named_and_leave_nothing(
        self, cache: EnvironmentCache, text: str
    ) -> None:
        with pytest.raises(BadInputError) as caught:
            self.use(cache, self.spec(text))

        assert caught.value.code == "RequirementsNotInstallable"
        assert caught.value.message.startswith(f"The requirements cannot be installed: {text}.")
        assert "ERROR" in caught.value.message
        assert self.folders(cache) == set()

    @pytest.mark.parametrize(
        ("text", "named"),
        [
            ("no-such-thing-anywhere==1.0", "no-such-thing-anywhere"),
            pytest.param("./missing.whl", "missing.whl", marks=pytest.mark.soak),
            pytest.param("!!! nonsense", "nonsense", marks=pytest.mark.soak),
            ("-r missing.txt", "missing.txt"),
        ],
    )
    def test_a_file_that_cannot_be_installed(
        self, cache: EnvironmentCache, tmp_path: Path, text: str, named: str
    ) -> None:
        file = tmp_path / "requirements.txt"
        file.write_text(text)
        with pytest.raises(BadInputError) as caught:
            self.use(cache, self.spec(file=file))

        assert caught.value.code == "RequirementsNotInstallable"
        assert named in caught.value.message
        assert self.folders(cache) == set()

    def test_a_password_of_an_index_is_masked(self, cache: EnvironmentCache) -> None:
        log: list[str] = []
        with pytest.raises(BadInputError) as caught:
            self.use(cache, self.spec("sample @ http://me:hidden@127.0.0.1:9/s.whl"), log)

        assert "hidden" not in str(caught.value)
        assert "hidden" not in "".join(log)

    @pytest.mark.parametrize("seen_by", ["pip", "the system"])
    def test_a_full_disk_is_named_and_leaves_nothing(
        self, cache: EnvironmentCache, monkeypatch: pytest.MonkeyPatch, seen_by: str
    ) -> None:
        def run(*_: Any, on_line: Callable[[int, str], None], **__: Any) -> ExitStatus:
            if seen_by == "the system":
                raise OSError(28, "No space left on device")
            on_line(0, "OSError: [Errno 28] No space left on device")
            return ExitStatus(1)

        monkeypatch.setattr(installer.process_group, "run", run)
        with pytest.raises(DiskFullError) as caught:
            self.use(cache, self.spec("numpy"))

        assert str(cache.root) in caught.value.message
        assert self.folders(cache) == set()

    def test_an_unsupported_python_is_refused_before_anything_is_made(
        self, cache: EnvironmentCache
    ) -> None:
        with pytest.raises(BadInputError) as caught:
            self.use(cache, EnvironmentSpec((), self.base, python="==2.7.*"))
        assert caught.value.code == "PythonVersionMismatch"
        assert "2.7" in caught.value.message
        assert not cache.root.exists()

        version = f"=={sys.version_info.major}.{sys.version_info.minor}.*"
        assert self.use(cache, EnvironmentSpec((), self.base, python=version)).exists()

    def test_concurrent_threads_make_one(self, cache: EnvironmentCache, tmp_path: Path) -> None:
        spec = self.spec(packages.wheel(tmp_path))
        log: list[str] = []
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda _: self.use(cache, spec, log), range(4)))

        assert len(set(found)) == 1
        assert len([line for line in log if line.startswith("Installing /")]) == 1

    def test_concurrent_processes_make_one(self, cache: EnvironmentCache, tmp_path: Path) -> None:
        code = program(cache, self.spec(packages.wheel(tmp_path)), "print(environment.folder)")
        started = [
            subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
            for _ in range(3)
        ]
        printed = "".join(one.communicate()[0] for one in started)

        assert [one.returncode for one in started] == [0, 0, 0]
        assert printed.count("Installing /") == 1
        assert len(self.folders(cache)) == 1

    def test_it_is_cancelled_while_it_is_made_or_waited_for(
        self, cache: EnvironmentCache, slow: EnvironmentSpec, tmp_path: Path
    ) -> None:
        cancelled = threading.Event()
        log: list[str] = []

        def use() -> None:
            with cache.using(slow, log.append, cancelled.is_set):
                pass

        with ThreadPoolExecutor(2) as pool:
            making = pool.submit(use)
            pid = pid_in(tmp_path / "pid")
            waiting = pool.submit(use)
            eventually(lambda: log[-1].startswith("Waiting for an environment"), "one waits")
            cancelled.set()
            for one in (making, waiting):
                with pytest.raises(InstallCancelledError):
                    one.result()

        assert self.folders(cache) == set()
        assert not runs(pid)

    def test_builds_see_no_credentials_of_the_platform(
        self,
        cache: EnvironmentCache,
        slow: EnvironmentSpec,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        for name in ("MODELYARD_DATABASE_URL", "PREFECT_API_URL", "MLFLOW_TRACKING_PASSWORD"):
            monkeypatch.setenv(name, "hidden")
        (tmp_path / "go").touch()
        self.use(cache, slow)

        names = (tmp_path / "environment").read_text().splitlines()
        assert "PATH" in names
        assert not [one for one in names if one.startswith(("MODELYARD", "PREFECT", "MLFLOW"))]

    def test_one_whose_maker_was_killed_is_made_anew(
        self, cache: EnvironmentCache, slow: EnvironmentSpec, tmp_path: Path
    ) -> None:
        code = program(cache, slow, "pass")
        maker = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL)
        pid = pid_in(tmp_path / "pid")
        (half,) = self.folders(cache)
        (cache.root / half / "rubbish").touch()
        maker.kill()
        maker.wait()
        eventually(lambda: not runs(pid), "pip ends with its owner")

        (tmp_path / "go").touch()
        folder = self.use(cache, slow)

        assert folder.name == half
        assert not (folder / "rubbish").exists()
        assert evaluate(folder, "import slow; print(slow.WORD)") == "made"

    def test_a_half_made_one_that_is_not_wanted_again_is_pruned(
        self, cache: EnvironmentCache
    ) -> None:
        used = self.use(cache, EnvironmentSpec((), self.base))
        half = cache.root / "half"
        half.mkdir()
        cache.prune()
        assert half.exists()

        os.utime(half, (0, 0))
        cache.prune()
        assert self.folders(cache) == {used.name}

    def test_pruning_removes_none_that_is_used(
        self, cache: EnvironmentCache, tmp_path: Path
    ) -> None:
        cache = EnvironmentCache(cache.root, most=0)
        spec = EnvironmentSpec((), self.base)
        with cache.using(spec, print, never) as environment:
            cache.prune()
            assert environment.python.exists()
            # A process that has inherited the lock keeps it as well.
            child = subprocess.Popen(
                ["sleep", "600"], pass_fds=[environment.lock.fileno()], stdin=subprocess.DEVNULL
            )
        cache.prune()
        assert environment.python.exists()

        child.kill()
        child.wait()
        cache.prune()
        assert self.folders(cache) == set()
