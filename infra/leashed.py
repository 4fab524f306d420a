"""Start commands on a leash: the owner's side of ``leash.py``."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

_LEASH = Path(__file__).with_name("leash.py")


def leash_command(
    command: Sequence[str],
    *,
    grace: float,
    stop_signal: signal.Signals = signal.SIGTERM,
    main_first: bool = False,
) -> list[str]:
    """The command line that runs ``command`` on a leash; its standard input must be a pipe."""
    first = "main" if main_first else "tree"
    options = ["--signal", str(int(stop_signal)), "--grace", str(grace), "--first", first]
    return [sys.executable, "-I", "-S", str(_LEASH), *options, "--", *command]


class Leashed:
    """A command whose whole process tree ends with this object's owner.

    Standard output and error come merged, as bytes, from ``output``, an unbuffered reader.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path,
        grace: float,
        keep: Sequence[int] = (),
    ) -> None:
        """Start ``command``; on a stop it has ``grace`` seconds between SIGTERM and SIGKILL.

        The tree inherits the open files ``keep``.
        """
        self._process = subprocess.Popen(
            leash_command(command, grace=grace),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=dict(env),
            cwd=cwd,
            bufsize=0,
            start_new_session=True,
            pass_fds=keep,
        )

    @property
    def output(self) -> IO[bytes]:
        """The reading end of the tree's merged output; at its end every writer is gone."""
        assert self._process.stdout is not None
        return self._process.stdout

    def stop(self) -> None:
        """Ask for the end of the tree: SIGTERM now, SIGKILL after the grace. Returns at once."""
        if self._process.stdin is not None and not self._process.stdin.closed:
            self._process.stdin.close()

    def runs(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.poll() is None

    def wait(self) -> int:
        """Wait for the end: the exit status, or minus the signal that ended the command."""
        code = self._process.wait()
        self.stop()
        return code
