"""Evaluation of expressions within a limit of time and memory.

CEL has no limit of its own: a macro over a long list runs its body for each item, and meanwhile no
other thread of the process runs. So an expression whose cost has a small bound is evaluated in
this process, and any other one in a process that the kernel ends at its limits.
"""

from __future__ import annotations

import pickle
import resource
import signal
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from infra.forkclient import own_python
from pipelines import expressions
from pipelines.expressions import Expression, ExpressionUndecidedError

CPU_SECONDS = 10
MEMORY_BYTES = 4 * 2**30
_WAIT_SECONDS = 120.0  # of a machine that is too busy for the processor time

# Measured: 10 ns for a step at most, where lists are compared; far less for most expressions.
_MOST_STEPS = 10_000_000
_CHARACTERS_PER_STEP = 32


def evaluate(
    expression: Expression,
    variables: Mapping[str, Any],
    *,
    cpu_seconds: int = CPU_SECONDS,
    memory_bytes: int = MEMORY_BYTES,
) -> Any:
    """Evaluate an expression.

    Args:
        expression: The expression.
        variables: Its variables: values of JSON, with numbers as doubles.
        cpu_seconds: The limit of processor time of another process.
        memory_bytes: The limit of its memory.

    Raises:
        ExpressionUndecidedError: If it has no value, or exceeds the limits.
    """
    if most_steps(expression, variables) <= _MOST_STEPS:
        return expression.value(variables)
    limits = cpu_seconds, memory_bytes
    request = (expression.text, expression.names, dict(variables), limits)
    try:
        child = subprocess.run(
            own_python(__name__),
            input=pickle.dumps(request), capture_output=True, timeout=_WAIT_SECONDS,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise _too_costly(*limits) from None
    if child.returncode != 0:
        raise _too_costly(*limits)
    found, why = pickle.loads(child.stdout)  # noqa: S301 (written by _serve, below)
    if why:
        raise ExpressionUndecidedError(why)
    return found


def most_steps(expression: Expression, variables: Mapping[str, Any]) -> int:
    """An upper bound of the evaluator's steps.

    Each token can visit all of a value. In a macro it does so for each item, and what is written
    in the expression can be the list.
    """
    tokens = len(expression.tokens) + _size(expression.text)
    size = _size(variables)
    if expression.has_macro:
        return tokens * (tokens + size) ** 2
    return tokens * (1 + size)


def _size(value: Any) -> int:
    if isinstance(value, str | bytes):
        return 1 + len(value) // _CHARACTERS_PER_STEP
    if isinstance(value, Mapping):
        return 1 + sum(_size(key) + _size(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return 1 + sum(map(_size, value))
    return 1


def _too_costly(cpu_seconds: int, memory_bytes: int) -> ExpressionUndecidedError:
    return ExpressionUndecidedError(
        f"it takes more than {cpu_seconds} s of processor time, or more than "
        f"{memory_bytes / 2**30:.1f} GiB of memory"
    )


def _serve() -> None:
    """Evaluate the expression that is read from standard input, and write its value."""
    text, names, variables, limits = pickle.load(sys.stdin.buffer)  # noqa: S301
    cpu_seconds, memory_bytes = limits
    signal.signal(signal.SIGXCPU, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds + 1))
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    answer: tuple[Any, str]
    try:
        answer = expressions.parse(text, names).value(variables), ""
    except ExpressionUndecidedError as error:
        answer = None, str(error)
    sys.stdout.buffer.write(pickle.dumps(answer))


if __name__ == "__main__":
    _serve()
