"""A predictor's other side: starts the process, asks it with a time limit, ends it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, BinaryIO, cast

import modelyard_runtime
from modelyard_runtime import frames
from modelyard_runtime.frames import Columns, Frame, FrameError

from infra.workloads.redaction import redactor
from registry.models import model_parameters
from registry.models.model_parameters import Scalar
from tasks.batch_inference.predictor_pipes import PipeTimeoutError, PredictorPipes

_END_SECONDS = 5.0
_PRINT_SECONDS = 1.0

# Of a line that a model prints so much is read, and so much is shown: none of a secret at the cut.
_LONGEST_LINE = 2**20
_SHOWN_OF_LINE = 2**16


class PredictionError(Exception):
    """A request that the predictor refused, or did not answer in time; the message is for people.

    Attributes:
        is_late: Whether there was no answer in time.
        is_lost: Whether the predictor has ended, or sent what is no answer.
        traceback: The model's own, if it has one.
    """

    def __init__(
        self, message: str, *, is_late: bool = False, is_lost: bool = False, traceback: str = ""
    ) -> None:
        super().__init__(message)
        self.is_late = is_late
        self.is_lost = is_lost
        self.traceback = traceback


class PredictorStartError(Exception):
    """A predictor that does not load its model; the message is for people."""


@dataclass(frozen=True)
class PredictorCommand:
    """How a predictor is started.

    Attributes:
        arguments: Its program and arguments.
        environment: Its variables, beside those of the model's parameters.
        load_seconds: How long it may load its model.
        parameters: The model's parameters. They are on no command line, which all users can read.
        secret: Names of those parameters whose values are hidden in what the model prints.
    """

    arguments: Sequence[str]
    environment: Mapping[str, str]
    load_seconds: float = 600.0
    parameters: Mapping[str, Scalar] = field(default_factory=dict)
    secret: tuple[str, ...] = ()

    def with_secrets(self, values: Mapping[str, str]) -> PredictorCommand:
        """The command with the values of parameters that only refer to secrets."""
        parameters = {**self.parameters, **values}
        return replace(self, parameters=parameters, secret=tuple(values))


def command_line(python: str, folder: Path) -> list[str]:
    """How a model's interpreter starts the predictor, which need not be installed there.

    Args:
        python: The interpreter.
        folder: The model's files.
    """
    return [python, str(Path(modelyard_runtime.__file__).parent), "--model-dir", str(folder)]


class PredictorClient:
    """A predictor, which is started again when it was lost. For one thread."""

    def __init__(self, command: PredictorCommand) -> None:
        self._command = command
        self._hide = redactor(str(command.parameters[name]) for name in command.secret)
        self._process: subprocess.Popen[bytes] | None = None
        self._pipes: PredictorPipes | None = None
        self._printer: threading.Thread | None = None
        self._count = 0

    def __enter__(self) -> PredictorClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Start the process and wait until it has loaded the model.

        One that ends meanwhile without a word is started once more: something else may have
        killed it.

        Raises:
            PredictorStartError: If it does not load.
        """
        for may_repeat in (True, False):
            try:
                self._start()
            except PredictionError as error:
                if not (may_repeat and error.is_lost):
                    raise PredictorStartError(f"The model does not load: {error}") from error
            else:
                return

    def _start(self) -> None:
        command = self._command
        variables = model_parameters.environment(command.parameters)
        self._process = subprocess.Popen(
            command.arguments,
            env={**command.environment, **variables},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if command.secret else None,
            start_new_session=True,
        )
        if self._process.stderr is not None:
            printed = (self._process.stderr, self._hide)
            self._printer = threading.Thread(
                target=_print, args=printed, name="printed", daemon=True
            )
            self._printer.start()
        first = {
            "parameters": model_parameters.texts(command.parameters),
            "arguments": model_parameters.arguments(command.parameters),
        }
        self._pipes = PredictorPipes(self._process)
        try:
            self._exchange(self._process, self._pipes, Frame(first), command.load_seconds, "load")
        except PredictionError:
            self.end()
            raise

    def prepare(self) -> None:
        """Start the predictor if it does not run; see :meth:`start`."""
        if self._process is None or self._process.poll() is not None:
            self.end()
            self.start()

    def infer(self, columns: Columns, seconds: float) -> Columns:
        """Predict; the predictor is started first if it does not run.

        Raises:
            PredictorStartError: If the predictor had to be started, and does not load its model.
            PredictionError: If it answers with an error, or not in ``seconds``; it is ended then.
        """
        self.prepare()
        process = cast("subprocess.Popen[bytes]", self._process)
        pipes = cast("PredictorPipes", self._pipes)
        self._count += 1
        try:
            return self._exchange(
                process, pipes, Frame({"id": self._count}, columns), seconds, "answer"
            )
        except PredictionError as error:
            if error.is_late or error.is_lost:
                rows = len(next(iter(columns.values())))
                again = f"It was asked for {rows:,} records, and is started again."
                print(error, again, file=sys.stderr, flush=True)
                self.end()
            raise

    def _exchange(
        self,
        process: subprocess.Popen[bytes],
        pipes: PredictorPipes,
        asked: Frame,
        seconds: float,
        what: str,
    ) -> Columns:
        """Ask, and wait for the answer until ``seconds`` have passed: to ``what``."""
        pipes.limit(seconds)
        try:
            request = frames.encoded(asked)
        except FrameError as error:
            raise PredictionError(f"The records cannot be sent to the model: {error}") from error
        try:
            frames.send(pipes, request)
            frame = frames.read(cast("BinaryIO", pipes))
        except PipeTimeoutError as error:
            raise PredictionError(
                f"The model did not {what} within {seconds:g} seconds.", is_late=True
            ) from error
        except OSError as error:
            raise PredictionError(_ended(process), is_lost=True) from error
        except FrameError as error:
            message = f"The predictor sent what is no answer: {error}"
            raise PredictionError(message, is_lost=True) from error
        if frame is None:
            raise PredictionError(_ended(process), is_lost=True)
        if told := frame.fields.get("error"):
            raise PredictionError(
                self._hide(str(told["message"])),
                is_lost=bool(told.get("is_out_of_memory")),
                traceback=self._hide(str(told["traceback"])),
            )
        if frame.fields.get("id") != asked.fields.get("id"):
            raise PredictionError("The predictor answered another request.", is_lost=True)
        return frame.columns

    def end(self) -> None:
        """Kill the process and all that it has started."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if self._pipes is not None:
            self._pipes.close()
        if self._printer is not None:
            self._printer.join(_PRINT_SECONDS)  # a child that lives on may hold what it reads

    def close(self) -> None:
        """End the process: by the end of its input, and after 5 seconds by a kill."""
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError, ValueError):
                self._process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_END_SECONDS)
        self.end()


def _print(printed: IO[bytes], hide: Callable[[str], str]) -> None:
    """Print what a model prints, line by line, without its secrets."""
    with printed:
        begun = False  # whether the line is the rest of an overlong one, which is left out
        for line in iter(lambda: printed.readline(_LONGEST_LINE), b""):
            if not begun:
                text = hide(line.decode(errors="replace").rstrip("\r\n"))[:_SHOWN_OF_LINE]
                print(text, file=sys.stderr, flush=True)
            begun = not line.endswith(b"\n")


def _ended(process: subprocess.Popen[bytes]) -> str:
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_END_SECONDS)
    code = process.poll()
    if code is None:
        return "The predictor closed its output."
    if code < 0:
        name = signal.Signals(-code).name
        memory = " It may have run out of memory." if -code == signal.SIGKILL else ""
        return f"The predictor was ended by {name}.{memory}"
    return f"The predictor ended with the exit code {code}."
