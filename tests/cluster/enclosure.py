"""Become a container: a root of its own, and a first process that takes the others with it.

Run as a script, with the interpreter's site left out, because it starts once for each container:

- ``enclosure.py hold`` makes the memory volumes of a pod and keeps them until its input ends.
- ``enclosure.py run`` runs a container's command, and ends with its exit code.

Both read a JSON document from the descriptor that the second argument names, and end when the
process ends whose number comes last. ``run`` writes to
the third one the number of the container's first process (``P 12``) and, where its command could
not start, why (``E reason``); it is closed once that is known.

The machine's files are seen by the command, but cannot be written; ``/tmp`` is its own. It needs
the right to make mounts, which root has.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import stat
import sys

TYPE_CHECKING = False  # typing is slow to import, too
if TYPE_CHECKING:
    from typing import Any, NoReturn

_NEWNS, _NEWUTS, _NEWIPC, _NEWPID = 0x00020000, 0x04000000, 0x08000000, 0x20000000
_BIND, _REC, _UNBINDABLE, _PRIVATE = 4096, 16384, 1 << 17, 1 << 18
_DETACH = 2
# CAP_SYS_PTRACE, CAP_SYS_ADMIN and CAP_PERFMON. The present user's right to its files stays.
_OTHERS_PROCESSES = (19, 21, 38)
_PR_SET_PDEATHSIG, _PR_CAPBSET_DROP = 1, 24
_MOUNT_SETATTR = 442
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_MASKED = ("tmp", "proc", "dev")
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts")
_LINKS = {"fd": "fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"}

_libc = ctypes.CDLL(None, use_errno=True)


def _call(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    done = _libc.mount(
        os.fsencode(source),
        os.fsencode(target),
        kind.encode() if kind else None,
        ctypes.c_ulong(flags),
        os.fsencode(data) if data else None,
    )
    _call(done, target)


class _Attributes(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "userns")]


def protect(path: str, recursive: bool = True) -> None:
    """Make a mount, and those below it, read-only."""
    wanted = _Attributes(set=1)
    done = _libc.syscall(
        _MOUNT_SETATTR,
        _AT_FDCWD,
        os.fsencode(path),
        _AT_RECURSIVE if recursive else 0,
        ctypes.byref(wanted),
        ctypes.sizeof(wanted),
    )
    _call(done, path)


def die_with(parent: int) -> None:
    """End when whoever started this process ends."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(137)


def unshare(flags: int) -> None:
    _call(_libc.unshare(flags), "namespaces")
    mount("none", "/", None, _REC | _PRIVATE)


def bind(source: str, target: str) -> None:
    """Mount a folder or a file, at a mount point that is made."""
    if stat.S_ISDIR(os.stat(source).st_mode):
        os.makedirs(target, exist_ok=True)
    elif not os.path.exists(target):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
    mount(source, target, None, _BIND | _REC)


def mirror(source: str, target: str, leave_out: tuple[str, ...] = ()) -> None:
    """Have everything that is in a folder in another one, which is empty."""
    for name in os.listdir(source):
        there, here = os.path.join(source, name), os.path.join(target, name)
        if name in leave_out:
            continue
        if os.path.islink(there):
            os.symlink(os.readlink(there), here)
        else:
            bind(there, here)


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


class Root:
    """The root that the container will have, while it is still a folder."""

    def __init__(self, folder: str, scratch: str) -> None:
        self.folder = folder
        mount("tmpfs", folder, "tmpfs", 0, "mode=0755")
        mount("none", folder, None, _UNBINDABLE)
        mirror("/", folder, leave_out=_MASKED)
        self._free = [folder]
        bind(scratch, self.place("/tmp"))
        self._free.append(self.place("/tmp"))
        os.makedirs(self.place("/proc"))
        self._make_devices()

    def _make_devices(self) -> None:
        folder = self.place("/dev")
        os.makedirs(folder)
        mount("tmpfs", folder, "tmpfs", 0, "mode=0755")
        self._free.append(folder)
        for name in os.listdir("/dev"):
            if name in _DEVICES or name.startswith("nvidia"):
                bind(os.path.join("/dev", name), os.path.join(folder, name))
        for name, target in _LINKS.items():
            os.symlink("/proc/self/" + target, os.path.join(folder, name))
        os.makedirs(os.path.join(folder, "shm"))

    def place(self, path: str) -> str:
        return os.path.join(self.folder, path.lstrip("/"))

    def resolve(self, path: str) -> str:
        """Where a path of the container is now; its links are followed below the new root."""
        here, parts = self.folder, _parts(path)[::-1]
        while parts:
            part = parts.pop()
            if part == "..":
                here = self.folder if here == self.folder else os.path.dirname(here)
                continue
            there = os.path.join(here, part)
            if os.path.islink(there):
                target = os.readlink(there)
                here = self.folder if target.startswith("/") else here
                parts.extend(_parts(target)[::-1])
            else:
                here = there
        return here

    def ensure(self, path: str, folder: bool = True) -> str:
        """Make a mount point where the machine has none, and leave the machine as it is."""
        wanted = self.resolve(path)
        here, parts = self.folder, _parts(os.path.relpath(wanted, self.folder))
        for number, part in enumerate(parts, 1):
            above, here = here, os.path.join(here, part)
            if os.path.exists(here):
                continue
            if above not in self._free:
                self._stand_in_for(above)
            if folder or number < len(parts):
                os.mkdir(here)
                self._free.append(here)
            else:
                os.close(os.open(here, os.O_CREAT | os.O_WRONLY, 0o644))
        return wanted

    def _stand_in_for(self, folder: str) -> None:
        below = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        mount("tmpfs", folder, "tmpfs", 0, "mode=0755")
        mirror(f"/proc/self/fd/{below}", folder)
        os.close(below)
        self.free(folder)

    def free(self, folder: str) -> None:
        """Let mount points be made in a folder."""
        self._free.append(folder)

    def close(self) -> None:
        """Let nobody write what is the machine's."""
        for name in os.listdir(self.folder):
            path = os.path.join(self.folder, name)
            if name not in _MASKED and os.path.ismount(path):
                protect(path)

    def enter(self) -> None:
        os.chdir(self.folder)
        _call(_libc.syscall(_PIVOT_ROOT, b".", b"."), "the root")
        _call(_libc.umount2(b".", _DETACH), "the old root")
        os.chdir("/")


_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}[os.uname().machine]


def build(spec: dict[str, Any]) -> Root:
    """Make the container's root, with its volumes."""
    root = Root(spec["root"], spec["scratch"])
    for path in spec["hidden"]:
        place = root.resolve(path)
        if os.path.isdir(place):
            mount("tmpfs", place, "tmpfs", 0, "mode=0755")
            root.free(place)
    # The outer ones first: a mount point for an inner one would pass for an outer one.
    held = sorted(spec["held"], key=len)
    for path in held:
        if not os.path.exists(root.resolve(path)):
            place = root.ensure(path)
            bind(path, place)
            protect(place)
    root.ensure(spec["workdir"])
    wanted = sorted(spec["mounts"], key=lambda one: one["path"].count("/"))
    above = []
    for one in wanted:
        path = one["path"].rstrip("/")
        if not any(path.startswith(other + "/") for other in above):
            root.ensure(path, folder=os.path.isdir(one["source"]))
        above.append(path)
    root.close()
    mount("tmpfs", root.place("/dev/shm"), "tmpfs", 0, f"mode=1777,size={spec['shm']}")
    for one in wanted:
        one["place"] = root.resolve(one["path"])
        bind(one["source"], one["place"])
    for one in wanted:
        if one["readonly"]:
            protect(one["place"], recursive=False)
    for path in held:  # which a volume may have covered
        place = root.resolve(path)
        if not os.path.exists(place):
            os.makedirs(place)
            bind(path, place)
            protect(place)
    for path in spec["closed"]:
        protect(root.resolve(path), recursive=False)
    return root


def _execute(spec: dict[str, Any]) -> str:
    """Become the command; returns why that cannot be."""
    command, environment = spec["command"], spec["env"]
    os.chdir(spec["workdir"])
    if spec["user"] is not None:
        os.setgroups(spec["groups"])
        os.setgid(spec["group"])
        os.setuid(spec["user"])
        die_with(0)  # a change of user forgets it
    for capability in _OTHERS_PROCESSES if spec["powerless"] else ():
        _libc.prctl(_PR_CAPBSET_DROP, capability)
    os.setsid()
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # the interpreter ignores them
        signal.signal(number, signal.SIG_DFL)
    name = command[0]
    if "/" in name:
        return _try(name, command, environment)
    for folder in environment["PATH"].split(":"):
        problem = _try(os.path.join(folder, name), command, environment)
        if not problem.endswith("no such file or directory"):
            return problem
    return f'exec: "{name}": executable file not found in $PATH'


def _try(path: str, command: list[str], environment: dict[str, str]) -> str:
    try:
        os.execve(path, command, environment)
    except OSError as error:
        return f"exec {path}: {error.strerror.lower()}"


def run(spec: dict[str, Any], report: int) -> NoReturn:
    if spec["holder"]:
        with open(f"/proc/{spec['holder']}/ns/mnt", "rb") as namespace:
            _call(_libc.setns(namespace.fileno(), _NEWNS), "the pod's volumes")
    unshare(_NEWNS | _NEWUTS | _NEWIPC | _NEWPID)
    try:
        root = build(spec)
    except OSError as error:
        os.write(report, f"E mount {error.filename}: {error.strerror}\n".encode())
        os._exit(128)
    name = spec["hostname"].encode()
    _call(_libc.sethostname(name, len(name)), "the name")
    child = os.fork()
    if child == 0:
        die_with(0)  # in its own eyes, the first process has no parent
        mount("proc", root.place("/proc"), "proc")
        root.enter()
        os.set_inheritable(report, False)
        try:
            problem = _execute(spec)
        except OSError as error:
            problem = f"{error.filename or 'its user'}: {error.strerror}"
        os.write(report, f"E {problem}\n".encode())
        os._exit(128)
    os.write(report, f"P {child}\n".encode())
    os.close(report)
    # A service sends its signals to the command itself; nothing else may end this process.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for descriptor in (0, 1, 2):
        os.close(descriptor)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os._exit(code if code >= 0 else 128 - code)


def hold(spec: dict[str, Any]) -> None:
    unshare(_NEWNS)
    for path, size in spec["memory"].items():
        limit = f",size={size}" if size else ""
        mount("tmpfs", path, "tmpfs", 0, "mode=1777" + limit)
    os.write(1, b"ready\n")
    os.read(0, 1)


def main(arguments: list[str]) -> None:
    die_with(int(arguments[-1]))
    with open(int(arguments[1]), "rb") as file:
        spec = json.load(file)
    if arguments[0] == "hold":
        hold(spec)
    else:
        run(spec, int(arguments[2]))


if __name__ == "__main__":
    main(sys.argv[1:])
