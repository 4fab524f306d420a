from __future__ import annotations

import os
import signal
import subprocess
import sys
import sysconfig
import time
from importlib import metadata
from pathlib import Path

import pytest

from infra.errors import BadInputError
from infra.workloads.environment_spec import BaseEnvironment, EnvironmentSpec, PipInstall
from infra.workloads.environments import EnvironmentCache
from tests.infra.workloads import packages
from tests.infra.workloads.environment_contract import (
    EnvironmentContract,
    evaluate,
    never,
    program,
)

pytestmark = pytest.mark.integration

_KFP = f"kfp=={metadata.version('kfp')}"
_OURS = Path(sysconfig.get_path("purelib"))
_SHADOWED = "mdurl"  # a small package that ours has
_EMPTY = EnvironmentSpec()


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    if not request.node.get_closest_marker("e2e"):
        monkeypatch.setenv("PIP_NO_INDEX", "1")


def _without_dependencies(*requirements: str) -> PipInstall:
    return PipInstall(requirements, ("--no-deps",))


class TestBare(EnvironmentContract):
    base = BaseEnvironment.BARE

    def test_nothing_of_ours_is_in_it(self, cache: EnvironmentCache) -> None:
        folder = self.use(cache, _EMPTY)

        assert evaluate(
            folder,
            "from importlib.metadata import distributions as d;"
            "print([one.metadata['Name'] for one in d()])",
        ) == "['pip']"  # fmt: skip
        assert evaluate(folder, "import sys; print(sys.version)") == sys.version

    def test_kfp_of_a_version_that_is_there_is_not_downloaded(
        self, cache: EnvironmentCache
    ) -> None:
        extensions = 'no-such-package>=3; python_version<"3.9"'
        log: list[str] = []
        spec = EnvironmentSpec((_without_dependencies(_KFP, extensions),))
        folder = self.use(cache, spec, log)
        assert not any(line.startswith("Installing") for line in log)

        code = "import kfp, kfp.dsl.executor_main; print(kfp.__version__, kfp.__file__)"
        version, _, file = subprocess.run(
            [str(folder / "bin" / "python3"), "-c", code],
            check=True, capture_output=True, text=True, env={"_KFP_RUNTIME": "true"},
        ).stdout.partition(" ")  # fmt: skip
        assert f"kfp=={version}" == _KFP
        assert file.startswith(str(folder))

    def test_another_version_of_it_is_not_copied(self, cache: EnvironmentCache) -> None:
        other = _KFP.replace("==", "==9.")
        with pytest.raises(BadInputError, match="cannot be installed: kfp"):
            self.use(cache, EnvironmentSpec((_without_dependencies(other),)))

    def test_packages_of_other_environments_are_copied(
        self, cache: EnvironmentCache, tmp_path: Path
    ) -> None:
        # Not by a path: pip marks those, as they may hold something else the next time.
        first = self.use(cache, self.spec(packages.wheel(tmp_path, "sample")))
        again = _without_dependencies("sample==1.0")
        with pytest.raises(BadInputError):
            self.use(cache, EnvironmentSpec((again,)))
        next(first.glob("lib/*/site-packages/sample-1.0.dist-info/direct_url.json")).unlink()

        two = PipInstall((str(packages.wheel(tmp_path, "two")),))
        folder = self.use(cache, EnvironmentSpec((again, two)))

        assert evaluate(folder, "import sample, two; print(1)") == "1"

    def test_an_option_of_pip_is_another_environment(
        self, cache: EnvironmentCache, tmp_path: Path
    ) -> None:
        wheel = str(packages.wheel(tmp_path))
        alone = EnvironmentSpec((_without_dependencies(wheel),))
        assert self.use(cache, alone) != self.use(cache, self.spec(wheel))


class TestOnModelyard(EnvironmentContract):
    base = BaseEnvironment.MODELYARD

    # The key of an environment is that of a bare one, where these are tested in a third of the
    # time: pip looks through all of our packages.
    @pytest.mark.soak
    def test_its_content_decides_which_it_is(
        self, cache: EnvironmentCache, tmp_path: Path
    ) -> None:
        super().test_its_content_decides_which_it_is(cache, tmp_path)

    @pytest.mark.soak
    @pytest.mark.parametrize("nested", [False, True])
    def test_the_same_words_about_other_content_are_another_environment(
        self, cache: EnvironmentCache, tmp_path: Path, nested: bool
    ) -> None:
        super().test_the_same_words_about_other_content_are_another_environment(
            cache, tmp_path, nested
        )

    @pytest.mark.soak
    @pytest.mark.parametrize("line", ["-e .", "--editable=./", ".", "-r more/other.txt"])
    def test_a_local_package_is_a_copy_keyed_by_its_content(
        self, cache: EnvironmentCache, tmp_path: Path, line: str
    ) -> None:
        super().test_a_local_package_is_a_copy_keyed_by_its_content(cache, tmp_path, line)

    @pytest.mark.parametrize("relative", [True, pytest.param(False, marks=pytest.mark.soak)])
    def test_requirements_are_added_to_ours_which_stays_as_it_is(
        self, cache: EnvironmentCache, tmp_path: Path, relative: bool
    ) -> None:
        wheel = packages.wheel(tmp_path / "wheels", "sample", "ANSWER = 42")
        line = "./wheels/" + wheel.name if relative else str(wheel)
        file = tmp_path / "requirements.txt"
        file.write_text(f"# ours\n{line}\nnumpy\n")
        before = _our_environment()

        folder = self.use(cache, self.spec(file=file))

        assert _our_environment() == before
        assert evaluate(folder, "import sample, numpy; print(sample.ANSWER)") == "42"

    def test_another_version_of_what_ours_has_shadows_it(
        self, cache: EnvironmentCache, tmp_path: Path
    ) -> None:
        wheel = packages.wheel(tmp_path, _SHADOWED, "VERSION = 'another'", version="99.0")
        before = _our_environment()

        folder = self.use(cache, self.spec(wheel))

        code = f"import {_SHADOWED}; from importlib import metadata; print({_SHADOWED}.VERSION,"
        assert evaluate(folder, f"{code} metadata.version('{_SHADOWED}'))") == "another 99.0"
        assert _our_environment() == before

    def test_a_failed_installation_leaves_ours_as_it_is(self, cache: EnvironmentCache) -> None:
        before = _our_environment()
        with pytest.raises(BadInputError):
            self.use(cache, self.spec("no-such-thing-anywhere"))
        assert _our_environment() == before

    def test_its_pip_installs_into_it(self, cache: EnvironmentCache, tmp_path: Path) -> None:
        before = _our_environment()
        folder = self.use(cache, EnvironmentSpec((), self.base))
        wheel = packages.wheel(tmp_path, "sample", "ANSWER = 42")
        subprocess.run([str(folder / "bin" / "pip"), "install", "-q", str(wheel)], check=True)

        assert evaluate(folder, "import sample; print(sample.ANSWER)") == "42"
        assert _our_environment() == before


def _our_environment() -> dict[str, tuple[str, int, int]]:
    """Every distribution of ours with when its files were last changed, and our commands."""
    found = {
        str(dist._path): (dist.version, dist._path.stat().st_mtime_ns, 0)  # type: ignore[attr-defined]
        for dist in metadata.distributions(path=[str(_OURS)])
    }
    for folder in (_OURS, Path(sysconfig.get_path("scripts"))):
        for path in folder.iterdir():
            if path.name != "__pycache__":
                found[str(path)] = ("", path.stat().st_mtime_ns, path.stat().st_size)
    return found


@pytest.fixture
def cache(tmp_path: Path) -> EnvironmentCache:
    return EnvironmentCache(tmp_path / "environments")


class TestOverlay:
    def test_it_sees_the_environment_and_keeps_what_is_installed_to_itself(
        self, cache: EnvironmentCache, tmp_path: Path
    ) -> None:
        one, two = packages.wheel(tmp_path, "one", "NAME = 1"), packages.wheel(tmp_path, "two")
        with (
            cache.using(EnvironmentSpec((PipInstall((str(one),)),)), print, never) as shared,
            cache.overlay(shared) as first,
            cache.overlay(shared) as second,
        ):
            assert evaluate(first.folder, "import one; print(one.NAME)") == "1"
            subprocess.run([str(first.programs / "pip"), "install", "-q", str(two)], check=True)
            assert evaluate(first.folder, "import two; print(2)") == "2"
            look = "import importlib.util as u; print(u.find_spec('two'))"
            assert evaluate(second.folder, look) == "None"
            assert evaluate(shared.folder, look) == "None"
            assert evaluate(second.folder, "import sys; print(sys.prefix)") == str(second.folder)
        assert list((cache.root / "jobs").iterdir()) == []


class TestPrune:
    def test_the_longest_unused_are_removed_and_none_that_is_in_use(self, tmp_path: Path) -> None:
        cache = EnvironmentCache(tmp_path / "environments", most=1)
        with cache.using(_EMPTY, print, never) as used:
            old = _complete(cache, "old", seconds=100)
            new = _complete(cache, "new", seconds=1)
            os.utime(used.folder / "modelyard-ready", (0, 0))
            cache.prune()

            assert _folders(cache) == {used.folder.name, new.name}
            assert not old.with_name("old.lock").exists()
        cache.prune()
        assert _folders(cache) == {new.name}

    def test_those_of_long_ago_are_removed(self, tmp_path: Path) -> None:
        cache = EnvironmentCache(tmp_path / "environments", days=2)
        _complete(cache, "old", seconds=3 * 86400)
        _complete(cache, "new", seconds=86400)
        cache.prune()

        assert _folders(cache) == {"new"}

    def test_use_makes_it_the_newest(self, cache: EnvironmentCache) -> None:
        folder = _use(cache)
        os.utime(folder / "modelyard-ready", (0, 0))
        _use(cache)

        assert (folder / "modelyard-ready").stat().st_mtime > time.time() - 3600

    def test_the_first_use_prunes(self, cache: EnvironmentCache) -> None:
        _use(cache)
        _complete(cache, "old", seconds=100 * 86400)
        _use(cache)
        assert "old" in _folders(cache)

        _use(EnvironmentCache(cache.root))
        assert "old" not in _folders(cache)

    def test_making_one_prunes(self, tmp_path: Path) -> None:
        cache = EnvironmentCache(tmp_path / "environments", most=1)
        _complete(cache, "old", seconds=100)
        _use(cache)

        assert "old" not in _folders(cache)

    def test_overlays_of_processes_that_were_killed_are_removed(
        self, cache: EnvironmentCache
    ) -> None:
        then = "print(cache.overlay(environment).__enter__().folder, flush=True); sys.stdin.read()"
        # The context is kept, or else it would end at once.
        then = "kept = cache.overlay(environment); " + then.replace(
            "cache.overlay(environment).", "kept."
        )
        owner = subprocess.Popen(
            [sys.executable, "-c", program(cache, _EMPTY, then)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert owner.stdout is not None
        left = Path(next(line for line in owner.stdout if "/jobs/" in line).strip())
        os.utime(left, (0, 0))
        cache.prune()
        assert left.exists()

        owner.send_signal(signal.SIGKILL)
        owner.communicate()
        cache.prune()
        assert list((cache.root / "jobs").iterdir()) == []


def _use(cache: EnvironmentCache) -> Path:
    with cache.using(_EMPTY, print, never) as environment:
        return environment.folder


def _folders(cache: EnvironmentCache) -> set[str]:
    return {path.name for path in cache.root.glob("*/")} - {"jobs"}


def _complete(cache: EnvironmentCache, name: str, seconds: float) -> Path:
    """A complete environment that was used ``seconds`` ago."""
    folder = cache.root / name
    folder.mkdir(parents=True)
    mark = folder / "modelyard-ready"
    mark.touch()
    os.utime(mark, (time.time() - seconds,) * 2)
    return folder


@pytest.mark.e2e
def test_kfp_from_the_package_index(cache: EnvironmentCache) -> None:
    """A version that is not ours, as the compiler of another time has pinned it."""
    log: list[str] = []
    install = _without_dependencies(
        "kfp==2.14.3", 'typing-extensions>=3.7.4,<5; python_version<"3.9"'
    )
    with cache.using(EnvironmentSpec((install,)), log.append, never) as environment:
        folder = environment.folder

    assert log[0] == "Installing kfp==2.14.3"
    code = "import kfp.dsl.executor_main; print(kfp.__version__)"
    found = subprocess.run(
        [str(folder / "bin/python3"), "-c", code],
        check=True, capture_output=True, text=True, env={"_KFP_RUNTIME": "true"},
    )  # fmt: skip
    assert found.stdout == "2.14.3\n"
    with cache.using(EnvironmentSpec((install, PipInstall(("six",)))), log.append, never) as other:
        assert other.folder != folder
