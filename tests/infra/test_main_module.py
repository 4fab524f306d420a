from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

_MODULE = """\
import json, signal, socket, sys
ours, theirs = socket.socketpair()
theirs.close()
try:
    ours.send(b"x")
except BrokenPipeError as error:
    broken = type(error).__name__
print(json.dumps([
    sys.argv, broken, signal.getsignal(signal.SIGINT) is signal.default_int_handler,
    signal.getsignal(signal.SIGXFSZ) == signal.SIG_IGN,
]))
sys.exit(3)
"""
# As a leash leaves them for the command that it starts.
_FORKED = """\
import signal, sys
for signum in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT):
    signal.signal(signum, signal.SIG_DFL)
from infra import main_module
sys.exit(main_module.run("module", ["one"]))
"""


def test_a_lost_connection_is_an_error_as_in_an_interpreter_of_its_own(tmp_path: Path) -> None:
    """And not the end of a server, of a worker or of a run."""
    (tmp_path / "module.py").write_text(_MODULE)

    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{_FORKED}"],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip

    assert (done.returncode, done.stderr) == (3, "")
    argv, *rest = json.loads(done.stdout)
    assert argv[1:] == ["one"]
    assert rest == ["BrokenPipeError", True, True]
