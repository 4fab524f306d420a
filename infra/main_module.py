"""Run a module in a forked process as ``python -m`` does in one of its own.

Of the standard library alone: interpreters of components load it by its path.
"""

from __future__ import annotations

import atexit
import contextlib
import runpy
import signal
import sys
import threading
import warnings


def run(module: str, arguments: list[str]) -> int:
    """Run ``module`` as ``__main__``, and end what an interpreter ends; the exit status."""
    # Those of an interpreter: else a server that closes a connection would end the process.
    for ignored in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(ignored, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = [module, *arguments]
    code: object = 0
    warnings.filterwarnings("ignore", category=RuntimeWarning, module="runpy")
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as exit_:
        code = exit_.code
    except BaseException:  # noqa: BLE001 (the edge of a process: shown, and reported as a status)
        sys.excepthook(*sys.exc_info())
        code = 1
    if code is not None and not isinstance(code, int):
        print(code, file=sys.stderr)
        code = 1
    _finish()
    return int(code or 0) & 0xFF


def _finish() -> None:
    """What an interpreter does at its end, but for taking all modules apart, which takes long."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
