"""The steps of a training: prepare, run the script, publish the model.

The contract with the script (arguments, environment variables, folders) is AI EasyMaker's; the
page ``docs/training-contract.md`` describes it in full.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from infra import storage
from infra.connection import user_environment
from infra.door import run_scope
from infra.errors import DiskFullError, ModelyardError, RunFailedError, naming
from infra.home import Home
from infra.settings import Settings
from infra.stack import orphans
from infra.storage import store
from infra.workloads.exit_status import ExitCause, ExitStatus
from infra.workloads.installer import InstallCancelledError
from registry.flow_kinds import TRAIN
from registry.runs import statuses
from tasks.parameters import Scalar
from tasks.run_directory import RunDirectory
from tasks.training import nodes, overlay
from tasks.training.overlay import Interpreter
from tasks.training.training_request import RUNNERS, Dataset, Training, variable_name

# The contract of an enclosing run, and a setting that would change the script's imports.
_NOT_INHERITED = ("EM_", "PYTHONSAFEPATH")
_OUT_OF_MEMORY_CODES = {-9, 137}
_OUT_OF_MEMORY_LINE = re.compile(r"exit ?code\s*:\s*-9\b")
_PROGRESS_SECONDS = 5.0

# PyTorch's messages at the first node and at the others.
_NEVER_JOINED_LINE = re.compile(
    r"\b\d+/\d+ clients joined|client socket has timed out after \d+ms while trying to connect"
)


@dataclass(frozen=True)
class PreparedScript:
    """A script that is ready to run.

    Attributes:
        command: Its command line.
        env: Variables that the contract adds to its environment.
        checkpoints: Folder that it writes checkpoints to.
        resumed: Whether it resumes from the output checkpoints of an earlier attempt.
        keep: Open files that its processes inherit, which hold its Python environment.
        held: Releases its Python environment when the script has ended.
    """

    command: list[str]
    env: dict[str, str]
    checkpoints: Path
    resumed: bool
    keep: tuple[int, ...] = ()
    held: contextlib.ExitStack = field(default_factory=contextlib.ExitStack, compare=False)


def prepare(
    training: Training,
    run_dir: RunDirectory,
    home: Home,
    settings: Settings,
    *,
    retried: bool,
    log: Callable[[str], object],
    deadline: float | None = None,
    stop_requested: Callable[[], bool] = lambda: False,
) -> PreparedScript:
    """Fetch the algorithm and the data, install the requirements, create the folders.

    Args:
        training: The request; checked and resolved.
        run_dir: The run's folders; leftovers of an earlier attempt are removed.
        home: Home whose environment cache is used.
        settings: Region and app key for the script.
        retried: Whether this is a later attempt, which resumes from output checkpoints if any.
        log: Receives progress lines of long transfers and of the installation.
        deadline: ``time.monotonic()`` at which the installation is cancelled; None for never.
        stop_requested: Polled while requirements are installed; true cancels.

    Raises:
        BadInputError: If the requirements cannot be installed, or a link leaves the directory.
        NotFoundError: If an input was removed since it was checked.
        DiskFullError: If the disk is full.
        RunFailedError: If the deadline passed while requirements were installed.
        InstallCancelledError: If a stop was requested during the installation.
        ModelyardError: If a store cannot be read.
    """
    run_dir.clear_for_retry()
    with contextlib.ExitStack() as held:
        try:
            with naming("algorithm.uri"):
                store(training.algorithm.uri).fetch(run_dir.source)
            for folder in (run_dir.model, run_dir.tensorboard):
                folder.mkdir(parents=True, exist_ok=True)
            entry = run_dir.source / training.algorithm.entry_point
            python = held.enter_context(
                _interpreter(training, entry, home, log, deadline, stop_requested)
            )
            run_dir.interpreter.write_text(python.path)
            if training.resources.torchrun:
                nodes.check_torchrun(python.path)
            checkpoints = _checkpoints(training, run_dir, retried=retried, log=log)
            resumed = retried and any(checkpoints.iterdir())
            env = _variables(training, run_dir, settings, checkpoints, resumed=resumed, log=log)
        except OSError as error:
            if storage.is_disk_full(error):
                raise DiskFullError(
                    f"The disk of {run_dir.root} is full.", "Make room."
                ) from error
            raise
        runner = RUNNERS[entry.suffix] or python.path
        command = [runner, str(entry), *arguments(training.hyperparameters)]
        return PreparedScript(command, env, checkpoints, resumed, python.keep, held.pop_all())


@contextlib.contextmanager
def _interpreter(
    training: Training,
    entry: Path,
    home: Home,
    log: Callable[[str], object],
    deadline: float | None,
    stop_requested: Callable[[], bool],
) -> Iterator[Interpreter]:
    """Use the script's interpreter, with the requirements beside its entry point."""

    def is_late() -> bool:
        return deadline is not None and time.monotonic() >= deadline

    requirements = entry.parent / "requirements.txt"
    with contextlib.ExitStack() as held:
        try:
            found = held.enter_context(
                overlay.using(
                    requirements, home.overlays, log, lambda: is_late() or stop_requested()
                )
            )
        except InstallCancelledError as error:
            if stop_requested():
                raise
            raise timeout_error(training, "installed its requirements") from error
        yield found


def _variables(
    training: Training,
    run_dir: RunDirectory,
    settings: Settings,
    checkpoints: Path,
    *,
    resumed: bool,
    log: Callable[[str], object],
) -> dict[str, str]:
    """Environment variables of the contract; creates and fetches what they name."""
    folders = {
        "EM_SOURCE_DIR": run_dir.source,
        "EM_MODEL_DIR": run_dir.model,
        "EM_CHECKPOINT_DIR": checkpoints,
        "EM_CHECKPOINT_INPUT_DIR": (
            checkpoints if resumed else _checkpoint_input(training, run_dir, log)
        ),
        "EM_TENSORBOARD_LOG_DIR": run_dir.tensorboard,
    }
    return {
        **{name: str(folder) for name, folder in folders.items() if folder is not None},
        **_dataset_variables(training.datasets, run_dir, log),
        **_hyperparameter_variables(training.hyperparameters),
        "EM_ENTRY_POINT": training.algorithm.entry_point,
        "EM_REGION": settings.region,
        "EM_APPKEY": settings.appkey,
    }


def _fetch(uri: str, destination: Path, what: str, log: Callable[[str], object]) -> None:
    """Fetch ``uri``, and log the progress at an interval."""
    logged = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal logged
        if time.monotonic() - logged > _PROGRESS_SECONDS:
            logged = time.monotonic()
            log(f"Fetching {what}: {done / 2**20:.0f} of {total / 2**20:.0f} MiB")

    store(uri).fetch(destination, progress=progress)


def _checkpoints(
    training: Training, run_dir: RunDirectory, *, retried: bool, log: Callable[[str], object]
) -> Path:
    """Folder that the script writes checkpoints to: ``checkpoint_uri`` if that is a local folder.

    Otherwise it is a folder of the run that is mirrored to the URI; a retry on another machine
    first fetches the mirrored checkpoints.
    """
    if not training.checkpoint_uri:
        folder = run_dir.checkpoints
    elif (target := store(training.checkpoint_uri)).in_place():
        folder = target.in_place() or run_dir.checkpoints
    else:
        folder = run_dir.checkpoints
        lost = not folder.exists() or not any(folder.iterdir())
        if retried and lost and target.is_directory():
            shutil.rmtree(folder, ignore_errors=True)
            with naming("checkpoint_uri"):
                _fetch(training.checkpoint_uri, folder, "checkpoints", log)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def mirror_uri(training: Training) -> str:
    """URI that checkpoints are mirrored to while the script runs; "" without a mirror."""
    uri = training.checkpoint_uri
    return uri if uri and store(uri).in_place() is None else ""


def _checkpoint_input(
    training: Training, run_dir: RunDirectory, log: Callable[[str], object]
) -> Path | None:
    uri = training.checkpoint_input_uri
    if not uri:
        return None
    with naming("checkpoint_input_uri"):
        return _folder_of(uri, run_dir.checkpoint_input, "checkpoints to begin from", log)


def _folder_of(uri: str, root: Path, what: str, log: Callable[[str], object]) -> Path:
    """Local folder with the content of ``uri``: in place, or fetched below ``root``.

    A single file is linked or fetched into a folder, under its own name.
    """
    source = store(uri)
    path = source.in_place()
    if source.is_directory():
        if path is not None:
            return path
        root.mkdir(parents=True, exist_ok=True)
        _fetch(uri, root / "files", what, log)
        return root / "files"
    root.mkdir(parents=True, exist_ok=True)
    if path is not None:
        (root / path.name).symlink_to(path)
    else:
        _fetch(uri, root / PurePosixPath(uri).name, what, log)
    return root


def _text(value: Scalar) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def arguments(hyperparameters: Mapping[str, Scalar]) -> list[str]:
    """Command-line arguments of the script: ``--key value`` per hyperparameter, by name.

    They are sorted because Prefect's database does not keep the order of keys.
    """
    pairs = sorted(hyperparameters.items())
    return [part for key, value in pairs for part in (f"--{key}", _text(value))]


def _hyperparameter_variables(hyperparameters: Mapping[str, Scalar]) -> dict[str, str]:
    # The contract says "the key in upper case". A shell cannot read names with - and ., so keys
    # with them are set in both forms.
    texts = {key: _text(value) for key, value in sorted(hyperparameters.items())}
    variables = {f"EM_HP_{variable_name(key)}": text for key, text in texts.items()}
    variables |= {f"EM_HP_{key.upper()}": text for key, text in texts.items()}
    return {**variables, "EM_HPS": json.dumps(dict(hyperparameters), sort_keys=True)}


def _dataset_variables(
    datasets: list[Dataset], run_dir: RunDirectory, log: Callable[[str], object]
) -> dict[str, str]:
    folders = {}
    for dataset in datasets:
        root = run_dir.datasets / dataset.name
        with naming(f"datasets.{dataset.name}"):
            folder = _folder_of(dataset.uri, root, f"the data set {dataset.name}", log)
        folders[dataset.name] = str(folder)
    variables = {}
    for name, found in folders.items():
        variables[f"EM_DATASET_{variable_name(name)}"] = found
        variables[f"EM_DATASET_{name.upper()}"] = found
    return {**variables, "EM_DATASETS": json.dumps(folders)}


def script_environment(
    prepared: PreparedScript,
    *,
    home: Home,
    flow_run_id: str,
    mlflow_run_id: str,
    experiment_id: str = "",
) -> dict[str, str]:
    """Complete environment of the script.

    It has the worker's variables without Modelyard's settings and credentials, the contract's
    variables, and a credential that is limited to the run's own MLflow run.
    """
    inherited = {
        name: value
        for name, value in user_environment().items()
        if not name.startswith(_NOT_INHERITED)
    }
    return {
        **inherited,
        **prepared.env,
        **orphans.inherited_mark(),
        **orphans.run_mark(home, flow_run_id),
        "MLFLOW_TRACKING_URI": os.environ["MLFLOW_TRACKING_URI"],
        **run_scope.from_environment(os.environ, mlflow_run_id),
        "MLFLOW_RUN_ID": mlflow_run_id,
        # Where MLflow's client makes nested runs.
        **({"MLFLOW_EXPERIMENT_ID": experiment_id} if experiment_id else {}),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PYTHONUNBUFFERED": "1",
        "PATH": os.pathsep.join(
            [str(Path(prepared.command[0]).parent), str(Path(sys.executable).parent),
             inherited.get("PATH", os.defpath)]
        ),
    }  # fmt: skip


def script_error(ended: ExitStatus, log: str) -> RunFailedError | None:
    """Error of a training whose script failed; None if the script succeeded.

    Args:
        ended: How the script ended.
        log: Location of the whole log, for the hint.
    """
    if ended.cause is ExitCause.EXITED and ended.code == 0:
        return None
    tail = "\n".join(ended.tail) or "(it printed nothing)"
    where = f" on {ended.process}" if ended.process else ""
    starved = ended.code in _OUT_OF_MEMORY_CODES or any(
        map(_OUT_OF_MEMORY_LINE.search, ended.tail)
    )
    if starved:
        return RunFailedError(
            f"The script was killed{where} (exit code -9), most likely because memory ran out. "
            f"Its last lines:\n{tail}\n",
            "Use smaller batches or fewer processes, or an instance type with more memory.",
            state=TRAIN.failure,
            code="OOMKilled",
        )
    if any(map(_NEVER_JOINED_LINE.search, ended.tail)):
        silent = f"; {', '.join(ended.silent)} printed nothing" if ended.silent else ""
        return RunFailedError(
            f"Not all nodes joined{silent}. The last lines{where}:\n{tail}\n",
            "Check the missing node in the log. MODELYARD_JOIN_SECONDS is how long torchrun waits "
            "for it.",
            state=TRAIN.failure,
            code="NodeNeverJoined",
        )
    how = f"signal {-ended.code}" if ended.code < 0 else f"exit code {ended.code}"
    return RunFailedError(
        f"The script failed{where} ({how}). Its last lines:\n{tail}\n",
        f"The whole log is {log}.",
        state=TRAIN.failure,
        code="ScriptFailed",
    )


def timeout_error(request: Training, what: str) -> RunFailedError:
    """Error of a training whose time limit passed; ``what`` is its activity until then."""
    return RunFailedError(
        f"The training {what} for its {request.max_minutes:g} minutes.",
        "Increase max_minutes (for a trial: trial_max_minutes), and retry, which resumes from the "
        "newest checkpoint, if any: modelyard runs update RUN -p max_minutes=N, then modelyard "
        "runs retry RUN.",
        state=statuses.TIMED_OUT,
        code="Timeout",
    )


def log_location(run_dir: RunDirectory, *, lasts: bool) -> str:
    """Location of the run's whole log, for messages.

    Args:
        run_dir: The run's folders.
        lasts: Whether they outlive the run; otherwise only MLflow has the log.
    """
    return str(run_dir.log) if lasts else "logs/train.log, an artifact of its MLflow run"


def with_model_hint(
    error: ModelyardError, run_dir: RunDirectory, *, lasts: bool
) -> ModelyardError:
    """Extend the hint of ``error`` if the run has a model that is not published yet.

    Args:
        error: The error; it is changed and returned.
        run_dir: The run's folders.
        lasts: Whether they outlive the run.
    """
    if run_dir.has_unpublished_model and lasts:
        error.hint += f" The model is kept in {run_dir.model}; a retry of the run publishes it."
    elif run_dir.has_unpublished_model:
        error.hint += (
            " The model was lost with the run's machine; a retry runs the script again, from its "
            "checkpoints if there is a checkpoint_uri."
        )
    return error
