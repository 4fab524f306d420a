"""The steps of a training: prepare, run the script, publish the model.

The contract with the script (arguments, environment variables, folders) is AI EasyMaker's; the
page ``docs/training-contract.md`` tells it in full.
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
from urllib.parse import unquote

from infra import storage
from infra.connection import user_environment
from infra.door import run_scope
from infra.errors import BadInputError, DiskFullError, ModelyardError, RunFailedError
from infra.home import Home
from infra.settings import Settings
from infra.stack import orphans
from infra.storage import store
from infra.workloads.exit_status import ExitCause, ExitStatus
from infra.workloads.installer import InstallCancelledError
from registry.flow_kinds import TRAIN
from registry.runs import statuses
from tasks.parameters import Scalar
from tasks.training import nodes, overlay
from tasks.training.overlay import Interpreter
from tasks.training.training_request import RUNNERS, Dataset, Training, variable_name
from tasks.workplace import Workplace

# Another run's contract, and our own settings, a password of the catalogue's among them.
_NOT_INHERITED = ("EM_", "PYTHONSAFEPATH")
_OUT_OF_MEMORY_CODES = {-9, 137}
_OUT_OF_MEMORY_LINE = re.compile(r"exit ?code\s*:\s*-9\b")
_PROGRESS_SECONDS = 5.0

# What PyTorch says at the first node and at the others.
_NEVER_JOINED_LINE = re.compile(
    r"\b\d+/\d+ clients joined|client socket has timed out after \d+ms while trying to connect"
)


@dataclass(frozen=True)
class Prepared:
    """A script that is ready to run.

    Attributes:
        command: Its command line.
        env: What the contract adds to its environment.
        checkpoints: Where it writes checkpoints.
        resumed: Whether it resumes from the output checkpoints of an earlier attempt.
        keep: Open files that its processes inherit, so that its environment stays.
        held: What is released when the script has ended: its environment.
    """

    command: list[str]
    env: dict[str, str]
    checkpoints: Path
    resumed: bool
    keep: tuple[int, ...] = ()
    held: contextlib.ExitStack = field(default_factory=contextlib.ExitStack, compare=False)


def prepare(
    training: Training,
    place: Workplace,
    home: Home,
    settings: Settings,
    *,
    retried: bool,
    say: Callable[[str], object],
    deadline: float | None = None,
    stop_requested: Callable[[], bool] = lambda: False,
) -> Prepared:
    """Fetch the algorithm and the data, install the requirements, lay out the folders.

    Args:
        training: The request; checked and resolved.
        place: The run's folders; what an earlier attempt left of them is cleared.
        home: Where environments are cached.
        settings: Region and app key for the script.
        retried: Whether this is a later attempt: it resumes from output checkpoints if any.
        say: Receives progress lines of long transfers and of the installation.
        deadline: ``time.monotonic()`` at which the installation is ended; None for never.
        stop_requested: Polled while requirements are installed.

    Raises:
        BadInputError: If the requirements cannot be installed or a link leads out.
        NotFoundError: If something was removed since it was checked.
        DiskFullError: If it does not fit.
        RunFailedError: If the deadline passed while requirements were installed.
        InstallCancelledError: If a stop was requested meanwhile.
        ModelyardError: If a store cannot be read.
    """
    place.clear_for_retry()
    with contextlib.ExitStack() as held:
        try:
            store(training.algorithm.uri).fetch(place.source)
            for folder in (place.model, place.tensorboard):
                folder.mkdir(parents=True, exist_ok=True)
            entry = place.source / training.algorithm.entry_point
            python = held.enter_context(
                _interpreter(training, entry, home, say, deadline, stop_requested)
            )
            if training.resources.torchrun:
                nodes.check_torchrun(python.path)
            checkpoints = _checkpoints(training, place, retried=retried, say=say)
            resumed = retried and any(checkpoints.iterdir())
            env = _variables(training, place, settings, checkpoints, resumed=resumed, say=say)
        except OSError as error:
            if storage.is_disk_full(error):
                raise DiskFullError(f"The disk of {place.root} is full.", "Make room.") from error
            raise
        runner = RUNNERS[entry.suffix] or python.path
        command = [runner, str(entry), *arguments(training.hyperparameters)]
        return Prepared(command, env, checkpoints, resumed, python.keep, held.pop_all())


@contextlib.contextmanager
def _interpreter(
    training: Training,
    entry: Path,
    home: Home,
    say: Callable[[str], object],
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
                    requirements, home.overlays, say, lambda: is_late() or stop_requested()
                )
            )
        except InstallCancelledError as error:
            if stop_requested():
                raise
            raise timed_out(training, "installed its requirements") from error
        yield found


def _variables(
    training: Training,
    place: Workplace,
    settings: Settings,
    checkpoints: Path,
    *,
    resumed: bool,
    say: Callable[[str], object],
) -> dict[str, str]:
    """The contract's environment variables, once the folders and data that they name exist."""
    folders = {
        "EM_SOURCE_DIR": place.source,
        "EM_MODEL_DIR": place.model,
        "EM_CHECKPOINT_DIR": checkpoints,
        "EM_CHECKPOINT_INPUT_DIR": (
            checkpoints if resumed else _checkpoint_input(training, place, say)
        ),
        "EM_TENSORBOARD_LOG_DIR": place.tensorboard,
    }
    return {
        **{name: str(folder) for name, folder in folders.items() if folder is not None},
        **_dataset_variables(training.datasets, place, say),
        **_hyperparameter_variables(training.hyperparameters),
        "EM_ENTRY_POINT": training.algorithm.entry_point,
        "EM_REGION": settings.region,
        "EM_APPKEY": settings.appkey,
    }


def _fetch(uri: str, destination: Path, what: str, say: Callable[[str], object]) -> None:
    """Fetch ``uri``, saying now and then how far it is."""
    told = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal told
        if time.monotonic() - told > _PROGRESS_SECONDS:
            told = time.monotonic()
            say(f"Fetching {what}: {done / 2**20:.0f} of {total / 2**20:.0f} MiB")

    store(uri).fetch(destination, progress=progress)


def _checkpoints(
    training: Training, place: Workplace, *, retried: bool, say: Callable[[str], object]
) -> Path:
    """Where the script writes checkpoints: ``checkpoint_uri`` itself, where it is a folder here.

    Elsewhere in the run's own folder, from which they are copied; a retry on another machine
    begins with the copies.
    """
    if not training.checkpoint_uri:
        folder = place.checkpoints
    elif (target := store(training.checkpoint_uri)).in_place():
        folder = target.in_place() or place.checkpoints
    else:
        folder = place.checkpoints
        lost = not folder.exists() or not any(folder.iterdir())
        if retried and lost and target.is_directory():
            shutil.rmtree(folder, ignore_errors=True)
            _fetch(training.checkpoint_uri, folder, "checkpoints", say)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def mirror_uri(training: Training) -> str:
    """Where checkpoints are copied while the script runs; "" if it writes there itself."""
    uri = training.checkpoint_uri
    return uri if uri and store(uri).in_place() is None else ""


def _checkpoint_input(
    training: Training, place: Workplace, say: Callable[[str], object]
) -> Path | None:
    uri = training.checkpoint_input_uri
    return (
        _folder_of(uri, place.checkpoint_input, "checkpoints to begin from", say) if uri else None
    )


def _folder_of(uri: str, root: Path, what: str, say: Callable[[str], object]) -> Path:
    """A folder with what is at ``uri``: the user's own, or one below ``root``.

    A file is found in a folder of its own, by its own name.
    """
    source = store(uri)
    path = source.in_place()
    if source.is_directory():
        if path is not None:
            return path
        root.mkdir(parents=True, exist_ok=True)
        _fetch(uri, root / "files", what, say)
        return root / "files"
    root.mkdir(parents=True, exist_ok=True)
    if path is not None:
        (root / path.name).symlink_to(path)
    else:
        _fetch(uri, root / PurePosixPath(uri).name, what, say)
    return root


def _text(value: Scalar) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def arguments(hyperparameters: Mapping[str, Scalar]) -> list[str]:
    """The script's arguments: ``--key value`` for each hyperparameter, by name.

    Prefect's database keeps no order of keys, so the names' own order is the one that a run in a
    pool and a call in this process share.
    """
    pairs = sorted(hyperparameters.items())
    return [part for key, value in pairs for part in (f"--{key}", _text(value))]


def _hyperparameter_variables(hyperparameters: Mapping[str, Scalar]) -> dict[str, str]:
    # The contract says "the key in upper case"; a shell can only read names without - and .,
    # so keys that have them come in both forms.
    texts = {key: _text(value) for key, value in sorted(hyperparameters.items())}
    variables = {f"EM_HP_{variable_name(key)}": text for key, text in texts.items()}
    variables |= {f"EM_HP_{key.upper()}": text for key, text in texts.items()}
    return {**variables, "EM_HPS": json.dumps(dict(hyperparameters), sort_keys=True)}


def _dataset_variables(
    datasets: list[Dataset], place: Workplace, say: Callable[[str], object]
) -> dict[str, str]:
    folders = {}
    for dataset in datasets:
        root = place.datasets / dataset.name
        folder = _folder_of(dataset.uri, root, f"the data set {dataset.name}", say)
        folders[dataset.name] = str(folder)
    variables = {}
    for name, found in folders.items():
        variables[f"EM_DATASET_{variable_name(name)}"] = found
        variables[f"EM_DATASET_{name.upper()}"] = found
    return {**variables, "EM_DATASETS": json.dumps(folders)}


def script_environment(
    prepared: Prepared,
    *,
    home: Home,
    flow_run_id: str,
    mlflow_run_id: str,
    experiment_id: str = "",
) -> dict[str, str]:
    """The script's whole environment.

    It is the worker's without the platform's settings and credentials; then the contract's
    variables, and a credential that opens the run's own MLflow run.
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


def failure(ended: ExitStatus, log: str) -> RunFailedError | None:
    """Why the training failed, or None if the script ended well.

    Args:
        ended: How the script ended.
        log: Where the whole log is, for the hint.
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
        silent = f", and nothing was heard of {', '.join(ended.silent)}" if ended.silent else ""
        return RunFailedError(
            f"Not all nodes joined{silent}. The last lines{where}:\n{tail}\n",
            "See in the log what the missing one did; MODELYARD_JOIN_SECONDS is how long torchrun "
            "waits for it.",
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


def timed_out(request: Training, what: str) -> RunFailedError:
    """Error of a training whose time limit passed while it did ``what``."""
    return RunFailedError(
        f"The training {what} for its {request.max_minutes:g} minutes.",
        "Give it a larger max_minutes (a trial: trial_max_minutes); a retry resumes from its "
        "newest checkpoint, if any.",
        state=statuses.TIMED_OUT,
        code="Timeout",
    )


def log_for_people(place: Workplace, *, lasts: bool) -> str:
    """Where a person finds the run's whole log.

    Args:
        place: The run's folders.
        lasts: Whether they outlive the run; else MLflow alone has the log.
    """
    return str(place.log) if lasts else "logs/train.log, an artifact of its MLflow run"


def kept(error: ModelyardError, place: Workplace, *, lasts: bool) -> ModelyardError:
    """``error``, telling what becomes of the model if there is one that waits.

    Args:
        error: The error.
        place: The run's folders.
        lasts: Whether they outlive the run.
    """
    if place.waits and lasts:
        error.hint += f" The model is kept in {place.model}; a retry of the run publishes it."
    elif place.waits:
        error.hint += (
            " The model went with the run's machine; a retry runs the script again, from its "
            "checkpoints if there is a checkpoint_uri."
        )
    return error


def publish_output(training: Training, place: Workplace) -> None:
    """Copy the model to ``output_uri``, if one was given: whole, or not at all.

    Raises:
        DiskFullError: If it does not fit.
    """
    if training.output_uri:
        store(training.output_uri).publish(place.model)


def has_model(place: Workplace) -> bool:
    """Whether the script left any file in EM_MODEL_DIR.

    Raises:
        BadInputError: With the code ``ModelNotAFolder``, if the script replaced the folder by
            something else, which would be lost.
    """
    if place.model.exists() and not place.model.is_dir():
        raise BadInputError(
            "The script replaced the folder EM_MODEL_DIR by a file.",
            "Write the model into the folder.",
            code="ModelNotAFolder",
        )
    return any(path.is_file() for path in place.model.rglob("*"))


def check_model(place: Workplace) -> None:
    """Refuse what MLflow cannot keep: links that lead out or nowhere, pipes, names with '#'.

    Raises:
        BadInputError: If there is any.
    """
    storage.check_tree(place.model, links_resolve=True)
    for path in place.model.rglob("*"):
        name = path.name
        if path.is_symlink() and path.is_dir():
            raise BadInputError(
                f"MLflow cannot keep the link {str(path.relative_to(place.model))!r} to a folder.",
                "Replace the link by the folder.",
                code="LinkToFolder",
            )
        if "#" in name or "?" in name or unquote(name) != name or not name.isprintable():
            raise BadInputError(
                f"MLflow cannot keep a file called {str(path.relative_to(place.model))!r}.",
                "Give it a name without '#', '?', '%' and control characters.",
                code="FileNameInvalid",
            )
