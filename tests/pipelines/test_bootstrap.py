import warnings
from typing import Any

import pytest
import yaml

from infra.workloads.environment_spec import PipInstall
from pipelines import bootstrap
from pipelines.bootstrap import ComponentCommand
from tests.pipelines.backends.jobs import BOOTSTRAP, EPHEMERAL
from tests.pipelines.corpus import compile_function

# The Python versions of long ago that need it are none of ours, but it is written all the same.
_EXTENSIONS = 'typing-extensions>=3.7.4,<5; python_version<"3.9"'
_KFP = PipInstall(("kfp==2.17.0", _EXTENSIONS), ("--no-deps",))


def _index(*names: str) -> tuple[str, ...]:
    """Options that name package indexes, as the compiler writes them."""
    words: list[str] = []
    for number, name in enumerate(names):
        words += [f"--{'extra-' if number else ''}index-url", f"https://{name}.example/simple"]
    for name in names:
        words += [f"--{'trusted'}-host", f"https://{name}.example/simple"]
    return tuple(words)


def _compiled(**options: Any) -> list[str]:
    """The command line of a component, as the installed SDK compiles it."""
    from kfp import dsl

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")

        @dsl.component(**options)
        def double(number: int) -> int:
            return 2 * number

        @dsl.pipeline(name="one")
        def pipeline() -> None:
            double(number=1)

        spec = yaml.safe_load(compile_function(pipeline))
    container = spec["deploymentSpec"]["executors"]["exec-double"]["container"]
    return [*container["command"], *container["args"]]


@pytest.mark.parametrize(
    ("options", "installs"),
    [
        ({}, (_KFP,)),
        (
            {"packages_to_install": ["numpy>=1", "a[b]==2.0; python_version>'3'", "c @ git+https://x"]},
            (PipInstall(("numpy>=1", "a[b]==2.0; python_version>'3'", "c @ git+https://x")), _KFP),
        ),
        (
            {"pip_index_urls": ["https://one.example/simple", "https://two.example/simple"]},
            (PipInstall(_KFP.requirements, (*_index("one", "two"), "--no-deps")),),
        ),
        ({"use_venv": True}, (_KFP,)),
        (
            {"use_venv": True, "packages_to_install": ["numpy"]},
            (PipInstall(("numpy",)), _KFP),
        ),
        ({"kfp_package_path": "git+https://x@main"}, (PipInstall(("git+https://x@main",)),)),
        ({"packages_to_install": ["kfp==2.0.1"]}, (PipInstall(("kfp==2.0.1",)),)),
        ({"install_kfp_package": False}, ()),
        (
            {"install_kfp_package": False, "packages_to_install": ["numpy"]},
            (PipInstall(("numpy",)),),
        ),
    ],
)  # fmt: skip
def test_what_the_sdk_compiles(options: dict[str, Any], installs: tuple[PipInstall, ...]) -> None:
    found = bootstrap.component(_compiled(base_image="python:3.11", **options))

    assert found.installs == installs
    assert found.source is not None
    assert "def double(number: int)" in found.source
    assert found.arguments == ("--executor_input", "{{$}}", "--function_to_execute", "double")


@pytest.mark.parametrize(
    "script",
    [
        # As versions of the SDK since 2.0 have written it.
        '\nif ! [ -x "$(command -v pip)" ]; then\n    python3 -m ensurepip || python3 -m '
        "ensurepip --user || apt-get install python3-pip\nfi\n\nPIP_DISABLE_PIP_VERSION_CHECK=1 "
        "python3 -m pip install --quiet     --no-warn-script-location 'kfp==2.0.1' && \"$0\" "
        '"$@"\n',
        "\nPIP_DISABLE_PIP_VERSION_CHECK=1 python3 -m pip install --quiet "
        '--no-warn-script-location \'kfp==2.0.1\' && "$0" "$@"\n',
        'python3 -m pip install \'kfp==2.0.1\' && "$0" "$@"',
    ],
)
def test_what_other_versions_of_the_sdk_compile(script: str) -> None:
    found = bootstrap.component(["sh", "-c", script, "echo", "hello"])

    assert found == ComponentCommand((PipInstall(("kfp==2.0.1",)),), ("echo", "hello"))


@pytest.mark.parametrize(
    "script",
    [
        BOOTSTRAP % "'-r requirements.txt'",
        BOOTSTRAP % "--target /x numpy",
        BOOTSTRAP % "numpy; rm -r x",
        BOOTSTRAP % "numpy > log",
        BOOTSTRAP % "numpy | cat",
        BOOTSTRAP % "numpy || true",
        BOOTSTRAP % "numpy & true",
        BOOTSTRAP % "$(cat packages)",
        BOOTSTRAP % "`cat packages`",
        BOOTSTRAP % '"$PACKAGES"',
        BOOTSTRAP % "'no end",
        BOOTSTRAP % "",
        BOOTSTRAP % "numpy && rm -r x",
        BOOTSTRAP % "numpy\nrm -r x",
        BOOTSTRAP.replace("fi\n", "fi\nrm -r x\n") % "numpy",
        BOOTSTRAP.replace('"$0" "$@"', '"$0"') % "numpy",
        BOOTSTRAP.replace("PIP_DISABLE", "PATH=/x PIP_DISABLE") % "numpy",
        BOOTSTRAP.replace("python3 -m pip install", "python3 -m pip uninstall") % "numpy",
        'echo hello && "$0" "$@"',
        '"$0" "$@"',
        "",
    ],
)
def test_what_is_not_certain_runs_as_it_is(script: str) -> None:
    words = ("sh", "-c", script, "sh", "-ec", EPHEMERAL, "source", "--more")

    assert bootstrap.component(words) == ComponentCommand((), words)


def test_another_second_script_runs_as_it_is() -> None:
    words = ("sh", "-ec", EPHEMERAL + "rm -r x\n", "source", "--more")

    assert bootstrap.component(words) == ComponentCommand((), words)
    assert bootstrap.component(("sh", "-ec", EPHEMERAL)).source is None


def test_words_that_only_look_alike() -> None:
    for words in ((), ("sh",), ("sh", "-c"), ("sh", "-c", BOOTSTRAP % "numpy"), ("echo", "$0")):
        assert bootstrap.component(words) == ComponentCommand((), words)


def test_whose_code_is_in_the_image() -> None:
    assert bootstrap.is_in_image(["python3", "-m", "kfp.dsl.executor_main", "--executor_input"])
    assert not bootstrap.is_in_image(
        ["python3", "-m", "kfp.dsl.executor_main", "--component_module_path", "/x.py"]
    )
    assert not bootstrap.is_in_image(["python3", "-m", "other"])


class TestMore:
    def test_code_is_added_after_the_component_s_own(self) -> None:
        words = _compiled(base_image="python:3.11")
        at = words.index("--executor_input")
        command, arguments = words[:at], words[at:]

        changed = bootstrap.append_code(command, arguments, "more()")

        found = bootstrap.component([*changed, *arguments])
        before = bootstrap.component(words)
        assert found.source == f"{before.source}\n\nmore()"
        assert found.installs == before.installs
        assert found.arguments == before.arguments

    def test_other_commands_stay(self) -> None:
        assert bootstrap.append_code(["sh", "-c", "x"], ["y"], "more()") == ("sh", "-c", "x")
