"""The ``modelyard`` command.

Verbs are loaded when they are called: starting and asking the stack needs neither Prefect's nor
MLflow's seconds of imports.
"""

from __future__ import annotations

import gc
import importlib
import importlib.metadata
import os
import sys
import textwrap
import traceback
from typing import Any

import typer
import typer.core
import typer.main
from pydantic import ValidationError

from infra import forked, settings
from infra import home as homes
from infra.errors import BadInputError, ModelyardError
from modelyard import completion, flow_help, lazy_imports, output

_STACK = "modelyard.commands.stack"
_ACCESS = "modelyard.commands.access"
_RUN = "modelyard.commands.run"
_BUG = (
    "This is a fault of Modelyard: report it, with the lines above and what modelyard status says."
)

# verb: (module, what it does)
_VERBS = {
    "up": (_STACK, "Start the local stack."),
    "down": (_STACK, "Stop the local stack."),
    "open": (_ACCESS, "Open the stack's pages in the browser, logged in."),
    "env": (_ACCESS, "Print the environment of Prefect's and MLflow's own clients."),
    "credential": (_ACCESS, "Credential of the stack's servers: rotate."),
    "status": (_STACK, "Show the parts of the local stack, their state and URLs."),
    "deploy": ("modelyard.commands.deploy", "Register the work pools and deployments."),
    "doctor": ("modelyard.commands.doctor", "Check a Kubernetes cluster for runs."),
    "run": (_RUN, "Start a run of a flow in its work pool."),
    "call": (_RUN, "Run a flow in this process."),
    "runs": (
        "modelyard.commands.runs",
        "Runs: list, show, logs, watch, compare, update, stop, retry, copy, delete.",
    ),
    "experiment": (
        "modelyard.commands.experiment",
        "Experiments: create, list, show, update, delete.",
    ),
    "template": (
        "modelyard.commands.template",
        "Training templates: create, list, show, update, copy, delete.",
    ),
    "algorithm": ("modelyard.commands.algorithm", "Provided algorithms: list, show."),
    "model": (
        "modelyard.commands.model",
        "Models: create, list, show, update, alias, promote, unalias, aliases, delete.",
    ),
    "evaluation": ("modelyard.commands.evaluation", "Model evaluations: list, show, compare."),
    "serve": (
        "modelyard.commands.serve",
        "Serve a model or a scoring script of Azure ML over HTTP.",
    ),
    "tensorboard": (
        "modelyard.commands.tensorboard",
        "Show the TensorBoard logs of an experiment or a run.",
    ),
    "schedule": (
        "modelyard.commands.schedule",
        "Schedules: create, list, show, slots, update, start, stop, copy, trigger, backfill, "
        "delete, preview, metrics.",
    ),
    "pipeline": (
        "modelyard.commands.pipeline",
        "Kubeflow pipelines: run, graph, upload, list, show, versions, update, download, delete.",
    ),
    "storage": ("modelyard.commands.storage", "Storage accesses: add, list, remove."),
    "notify": ("modelyard.commands.notify", "Notifications: add, list, test, remove."),
    "apply": ("modelyard.commands.apply", "Create, change and delete schedules to match a file."),
    "katib": ("modelyard.commands.katib", "Convert a Katib Experiment to parameters of tune."),
    "completion": (
        "modelyard.commands.completion",
        "Print or install the completion script of a shell.",
    ),
    "demo": ("modelyard.commands.demo", "Start the stack, train a model and show the result."),
}


class _Verbs(typer.core.TyperGroup):
    """Finds verbs in the table and loads the module of the one that is called."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(_VERBS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in _VERBS:
            return None
        module, _ = _VERBS[cmd_name]
        command: Any = typer.main.get_command(importlib.import_module(module).app)
        inner = getattr(command, "commands", {})
        return inner.get(cmd_name, command)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        width = max(map(len, _VERBS))
        formatter.write("Usage: modelyard VERB [OPTIONS]\n\n")
        indent = " " * (width + 4)
        for verb, (_, text) in _VERBS.items():
            lead = f"  {verb:<{width}}  "
            lines = textwrap.wrap(
                text, output.console.width, initial_indent=lead, subsequent_indent=indent
            )
            formatter.write("\n".join(lines) + "\n")
        formatter.write(
            "\nmodelyard VERB --help describes a verb; --json prints one JSON value.\n"
        )
        formatter.write(
            "modelyard run FLOW --help lists the parameters of a flow.\n"
            "modelyard --version prints the version.\n"
        )


# Verbs that import what the fork server of a running stack has imported already.
_FORKED = {
    "run", "runs", "experiment", "template", "model", "schedule", "pipeline", "apply",
    "tensorboard", "notify", "storage", "evaluation",
}  # fmt: skip
_FORKED_VARIABLE = "MODELYARD_FORKED"


def _fork_if_faster(arguments: list[str]) -> None:
    """Become a client of the fork server where that saves seconds of imports."""
    if not _FORKED.intersection(arguments[:1]) or os.environ.pop(_FORKED_VARIABLE, ""):
        return
    home = homes.current()
    if forked.accepts(forked.socket_path(home)):
        os.environ[_FORKED_VARIABLE] = "1"
        command = forked.forkserver_command(home, "modelyard.main", *arguments)
        os.execv(command[0], command)  # noqa: S606


cli = _Verbs(name="modelyard", no_args_is_help=True)


def _tell_version(*, as_json: bool) -> None:
    version = importlib.metadata.version("modelyard")
    if as_json:
        output.as_json({"version": version})
    else:
        output.console.print(version)


def _with_unheeded(error: ModelyardError) -> ModelyardError:
    """The error with the settings of the caller's shell that the running stack has not."""
    if unheeded := os.environ.get(forked.UNHEEDED_VARIABLE):
        told = (
            f"The running stack was started without {unheeded} of this shell. To let the stack "
            "have it: modelyard down, then modelyard up --detach."
        )
        error.hint = f"{error.hint} {told}".strip()
    return error


def _invalid_setting(error: ValidationError) -> BadInputError:
    """Name the environment variable of a setting that does not parse."""
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))
    if error.title == settings.Settings.__name__:
        where = settings.variable(where)
    return BadInputError(f"{where}: {first['msg']}.", f"Correct {where}, or leave it out.")


def main() -> None:
    """Run the command line; the process's exit status is 0 only if what was asked was done."""
    gc.set_threshold(50_000)  # or a fifth of a verb's imports would be looking for garbage
    if instruction := completion.instruction():
        sys.exit(completion.complete(instruction))
    arguments = sys.argv[1:] or ["--help"]
    as_json = "--json" in arguments
    if arguments[0] == "--json":  # as good before the verb as after it
        arguments = [*arguments[1:], "--json"]
    if arguments[0] == "--version":
        _tell_version(as_json=as_json)
        sys.exit(0)
    if arguments[0] == "--install-completion":
        arguments = ["completion", "--install", *arguments[1:]]
    try:
        if flow := flow_help.flow_of(arguments):
            flow_help.show(arguments[0], flow, as_json=as_json)
            sys.exit(0)
        _fork_if_faster(arguments)
        lazy_imports.install()
        code = cli.main(arguments, prog_name="modelyard", standalone_mode=False)
    except ModelyardError as error:
        output.error(_with_unheeded(error), as_json_=as_json)
        code = 1
    except ValidationError as error:
        output.error(_invalid_setting(error), as_json_=as_json)
        code = 1
    except typer.TyperException as error:
        text = error.format_message().replace(": Value error, ", ": ", 1)  # pydantic's words
        output.error(BadInputError(text, "See --help.", code="Usage"), as_json_=as_json)
        code = 2
    except (typer.Abort, KeyboardInterrupt):
        code = 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141
    except Exception as error:  # noqa: BLE001 (the edge of the command: told, and shown whole)
        traceback.print_exc()
        reason = f"{type(error).__name__}: {error}"
        output.error(ModelyardError(reason, _BUG, code="Internal"), as_json_=as_json)
        code = 1
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
