"""A hostile script: searches every process and folder that it can read for words.

The words are in EM_HP_WORDS, separated by spaces and each in reverse, so that what tells them does
not count; the folders are in EM_HP_FOLDERS. Files that did not change since EM_HP_SINCE, a time in
seconds, are left out, where the words are younger. It prints where it has found one, and at last
"searched".
"""

import contextlib
import ctypes
import os
from pathlib import Path

_PTRACE_ATTACH, _PTRACE_DETACH, _WALL = 16, 17, 0x40000000
_LARGEST = 256 << 20


def _memory(process):
    """The readable memory of a process, region by region."""
    with (process / "maps").open() as maps, (process / "mem").open("rb", 0) as memory:
        for line in maps:
            begin, end = (int(number, 16) for number in line.split()[0].split("-"))
            if line.split()[1].startswith("r") and end - begin <= _LARGEST:
                with contextlib.suppress(OSError, OverflowError, ValueError):
                    memory.seek(begin)
                    yield memory.read(end - begin)


def _open_files(process):
    for path in (process / "fd").iterdir():
        if path.is_file():
            with contextlib.suppress(OSError), path.open("rb") as file:
                yield file.read(1 << 20)


_READERS = {
    "environ": lambda process: [(process / "environ").read_bytes()],
    "cmdline": lambda process: [(process / "cmdline").read_bytes()],
    "mem": _memory,
    "fd": _open_files,
}


def _owner():
    """The process that started this script's leash."""
    stat = Path(f"/proc/{os.getppid()}/stat").read_text()
    return int(stat.rpartition(")")[2].split()[1])


def _can_attach(pid):
    libc = ctypes.CDLL(None)
    if libc.ptrace(_PTRACE_ATTACH, pid, 0, 0):
        return False
    os.waitpid(pid, _WALL)
    libc.ptrace(_PTRACE_DETACH, pid, 0, 0)
    return True


def main():
    words = [word[::-1].encode() for word in os.environ["EM_HP_WORDS"].split()]
    since = float(os.environ.get("EM_HP_SINCE", "0"))
    for process in Path("/proc").iterdir():
        if not process.name.isdigit() or int(process.name) == os.getpid():
            continue
        for name, read in _READERS.items():
            with contextlib.suppress(OSError):
                if any(word in part for part in read(process) for word in words):
                    print(f"found in {process / name}")
    for folder in os.environ["EM_HP_FOLDERS"].split():
        for path in Path(folder).rglob("*"):
            with contextlib.suppress(OSError):
                recent = path.is_file() and path.stat().st_ctime >= since
                content = path.read_bytes() if recent else b""
                if any(word in content for word in words):
                    print(f"found in {path}")
    if any(word.decode() in value for word in words for value in os.environ.values()):
        print("found in its own environment")
    if _can_attach(_owner()):
        print("attached to its owner")
    print("searched", flush=True)


if __name__ == "__main__":
    main()
