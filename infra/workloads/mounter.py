"""Become a command that has private mounts.

Used as ``python -I -S mounter.py SPEC -- COMMAND...``, or with ``--probe`` to find out whether
this machine allows it. ``SPEC`` is a JSON file: ``mounts``, each with its ``path`` and either
``source`` (a folder), ``files`` (contents in base64, by name; read-only) or ``size`` (memory,
in bytes; 0 for as much as there is); and ``shared``, folders in which mount points are made for
good, because what the command leaves beside them is wanted.

The process gets a mount namespace of its own, and a user namespace where it may not have one
otherwise, in which it stays the user that it was. The mounts are gone when the last process in it
is. A mount point that is missing is made in a stand-in for the folder that it belongs to: memory
in which everything that the folder has is mounted again, so that nothing is left on the disk.

It executes the command in its own place, so that the process that is watched is the command.
Only the standard library is imported, because it starts once for each command.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import json
import os
import signal
import stat
import sys
from typing import Any, NoReturn

_CLONE_NEWNS = 0x00020000
_CLONE_NEWUSER = 0x10000000
_MS_RDONLY, _MS_REMOUNT, _MS_BIND, _MS_REC = 1, 32, 4096, 16384
_MS_UNBINDABLE, _MS_PRIVATE = 1 << 17, 1 << 18
_PR_SET_PDEATHSIG = 1
_REFUSED = 125

_libc = ctypes.CDLL(None, use_errno=True)


def _call(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)


def _mount(source: str, target: str, kind: str | None, flags: int, data: str = "") -> None:
    found = _libc.mount(
        os.fsencode(source), os.fsencode(target), kind.encode() if kind else None,
        ctypes.c_ulong(flags), os.fsencode(data) if data else None,
    )  # fmt: skip
    _call(found, target)


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:  # noqa: PTH123
        file.write(text)


def enter() -> None:
    """Have a mount namespace of one's own."""
    user, group, parent = os.geteuid(), os.getegid(), os.getppid()
    if _libc.unshare(_CLONE_NEWNS) != 0:
        _call(_libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNS), "a user namespace")
        with contextlib.suppress(FileNotFoundError):
            _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"{user} {user} 1")
        _write("/proc/self/gid_map", f"{group} {group} 1")
    _mount("none", "/", None, _MS_REC | _MS_PRIVATE)
    # Whoever watches over this process has asked for it, and another identity may forget it.
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(137)


def _mirror(source: str, target: str) -> None:
    """Mount everything that is in a folder again in another one, which is empty."""
    for name in os.listdir(source):  # noqa: PTH208 (pathlib is slow to import)
        there, here = f"{source.rstrip('/')}/{name}", f"{target}/{name}"
        mode = os.lstat(there).st_mode
        if stat.S_ISLNK(mode):
            os.symlink(os.readlink(there), here)  # noqa: PTH115, PTH211
            continue
        if stat.S_ISDIR(mode):
            os.mkdir(here)  # noqa: PTH102
        else:
            os.close(os.open(here, os.O_CREAT | os.O_WRONLY, 0o600))
        _mount(there, here, None, _MS_BIND | _MS_REC)


def _stand_in_for_root(place: str) -> None:
    """Have a root folder in which mount points can be made. ``place`` is any folder."""
    _mount("tmpfs", place, "tmpfs", 0, "mode=0755")
    # So that it is not in what is mounted into it.
    _mount("none", place, None, _MS_UNBINDABLE)
    _mirror("/", place)
    os.chroot(place)
    os.chdir("/")
    _mount("none", "/", None, _MS_PRIVATE)


def _make(folder: str) -> None:
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder)  # noqa: PTH102


class _Places:
    """Where mount points may be made."""

    def __init__(self, shared: list[str]) -> None:
        self._free = [os.path.realpath(path) for path in shared]

    def add(self, path: str) -> None:
        """Let mount points be made in a folder, and below it."""
        self._free.append(os.path.realpath(path))

    def ensure(self, path: str) -> None:
        """Make a mount point, unless it is there."""
        here = ""
        for part in [one for one in path.split("/") if one]:
            above, here = here or "/", f"{here}/{part}"
            if os.path.isdir(here):  # noqa: PTH112
                continue
            if os.path.lexists(here):
                raise NotADirectoryError(20, "it is a file", here)
            self._make(above, here)

    def _make(self, above: str, here: str) -> None:
        real = os.path.realpath(above)
        if any(real == free or real.startswith(f"{free.rstrip('/')}/") for free in self._free):
            with contextlib.suppress(PermissionError):
                _make(here)
                return
        self._stand_in_for(real)
        os.mkdir(here)  # noqa: PTH102

    def _stand_in_for(self, folder: str) -> None:
        """Put memory over a folder, with everything that was in it."""
        mode = stat.S_IMODE(os.stat(folder).st_mode)  # noqa: PTH116
        below = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            _mount("tmpfs", folder, "tmpfs", 0, f"mode={mode:o}")
            _mirror(f"/proc/self/fd/{below}", folder)
        finally:
            os.close(below)
        self.add(folder)


def _put(mount: dict[str, Any]) -> None:
    path = mount["path"]
    if "source" in mount:
        _mount(mount["source"], path, None, _MS_BIND | _MS_REC)
        return
    limit = f",size={mount['size']}" if mount.get("size") else ""
    mode = "0755" if "files" in mount else "0777"
    _mount("tmpfs", path, "tmpfs", 0, f"mode={mode}{limit}")
    for name, content in mount.get("files", {}).items():
        with open(f"{path}/{name}", "xb") as file:  # noqa: PTH123
            file.write(base64.b64decode(content))


def mount_all(mounts: list[dict[str, Any]], shared: list[str]) -> None:
    """Make all mounts, those above others first."""
    enter()
    mounts = sorted(mounts, key=lambda one: one["path"].count("/"))
    folder = os.getcwd()  # noqa: PTH109
    firsts = {"/" + one["path"].strip("/").split("/")[0] for one in mounts}
    places = _Places(shared)
    if not all(os.path.lexists(first) for first in firsts):
        _stand_in_for_root(folder)
        for first in sorted(firsts):
            _make(first)
    for one in mounts:
        places.ensure(one["path"])
        _put(one)
        places.add(one["path"])
    for one in mounts:
        if "files" in one:
            _mount("none", one["path"], None, _MS_BIND | _MS_REMOUNT | _MS_RDONLY)
    os.chdir(folder)


def _environment() -> dict[bytes, bytes]:
    """The variables that this process was given, without what the interpreter has added."""
    with open("/proc/self/environ", "rb") as file:  # noqa: PTH123
        pairs = [one.partition(b"=") for one in file.read().split(b"\0") if one]
    return {name: value for name, _, value in pairs}


def _become(command: list[str]) -> NoReturn:
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # the interpreter ignores them
        signal.signal(number, signal.SIG_DFL)
    os.execvpe(command[0], command, _environment())  # noqa: S606


def main(arguments: list[str]) -> None:
    """Make the mounts, and become the command."""
    try:
        if arguments == ["--probe"]:
            enter()
            _mount("tmpfs", os.getcwd(), "tmpfs", 0)  # noqa: PTH109
            return
        with open(arguments[0], "rb") as file:  # noqa: PTH123
            spec = json.load(file)
        mount_all(spec["mounts"], spec["shared"])
    except OSError as error:
        what = os.fsdecode(error.filename or "it")
        print(f"{what} cannot be mounted: {error.strerror}", file=sys.stderr)
        sys.exit(_REFUSED)
    command = arguments[arguments.index("--") + 1 :]
    try:
        _become(command)
    except OSError as error:
        print(f"cannot run {command[0]}: {error.strerror}", file=sys.stderr)
        sys.exit(127)


if __name__ == "__main__":
    main(sys.argv[1:])
