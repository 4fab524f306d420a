"""A stand-in for Docker's command: it runs containers as processes, and records what it was told.

It takes the options that real Docker takes and refuses others; mounts must exist, and hold the
working folder.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

STATE = Path(os.environ["FAKE_DOCKER"])


def _record(arguments: list[str]) -> None:
    with (STATE / "calls").open("a") as file:
        file.write(json.dumps(arguments) + "\n")


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    for name in ("rm", "init"):
        parser.add_argument(f"--{name}", action="store_true", required=True)
    for name in ("name", "workdir", "env-file"):
        parser.add_argument(f"--{name}", required=True)
    for name in ("cpus", "memory", "memory-reservation", "gpus", "pull", "entrypoint",
                 "shm-size", "user"):  # fmt: skip
        parser.add_argument(f"--{name}")
    for name in ("label", "mount", "env", "publish"):
        parser.add_argument(f"--{name}", action="append", default=[])
    parser.add_argument("image")
    parser.add_argument("words", nargs=argparse.REMAINDER)
    return parser


def _fail(code: int, message: str) -> None:
    sys.stderr.write(f"docker: {message}\n")
    sys.exit(code)


def _environment(given: argparse.Namespace) -> dict[str, str]:
    file = Path(given.env_file)
    assert file.stat().st_mode & 0o077 == 0, "others can read the secrets"
    env = {"PATH": os.environ["PATH"]}
    for line in file.read_text().splitlines():
        name, _, value = line.partition("=")
        env[name] = value
    for name in given.env:
        env[name] = os.environ[name]
    return env


def _run(arguments: list[str]) -> int:
    given = _options().parse_args(arguments)
    if given.image.startswith("missing"):
        _fail(125, f"Error response from daemon: pull access denied for {given.image}.")
    if given.image.startswith("engineless"):
        _fail(
            125, "Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?"
        )
    if given.image.startswith("odd"):
        _fail(125, "Error response from daemon: something odd.")
    mounts = []
    found: dict[str, dict[str, str]] = {}
    for text in given.mount:
        fields = dict(part.partition("=")[::2] for part in next(csv.reader([text])))
        if fields["type"] == "tmpfs":
            assert not {"source", "readonly"} & set(fields)
            continue
        assert fields["type"] == "bind"
        source = Path(fields["source"])
        assert source.exists(), source
        mounts.append(Path(fields["target"]))
        if "readonly" in fields and source.is_dir():
            files = (one for one in source.iterdir() if one.is_file())
            found[fields["target"]] = {one.name: one.read_text() for one in files}
    (STATE / "mounted").write_text(json.dumps(found))
    assert any(Path(given.workdir).is_relative_to(mount) for mount in mounts)
    words = [given.entrypoint, *given.words] if given.entrypoint else ["image-s-own", *given.words]
    started: list[subprocess.Popen[bytes]] = []
    stops: list[int] = []  # one may come before Popen returns, when the container speaks at once

    def stop(number: int, _: object) -> None:
        stops.append(number)
        for one in started:
            one.send_signal(number)

    signal.signal(signal.SIGTERM, stop)
    try:
        process = subprocess.Popen(
            words, env=_environment(given), cwd=given.workdir, start_new_session=True
        )
    except FileNotFoundError:
        _fail(127, f'Error response from daemon: exec: "{words[0]}": executable file not found')
    except PermissionError:
        _fail(126, f'Error response from daemon: exec: "{words[0]}": permission denied')
    container = STATE / given.name
    container.write_text(str(process.pid))
    started.append(process)
    if stops:
        process.send_signal(stops[0])
    code = process.wait()
    container.unlink(missing_ok=True)
    return 128 - code if code < 0 else code


def main(arguments: list[str]) -> int:
    _record(arguments)
    if arguments[0] == "run":
        return _run(arguments[1:])
    if arguments[0] == "rm":
        container = STATE / arguments[-1]
        if container.exists():
            subprocess.run(["pkill", "-KILL", "-s", container.read_text()])
            container.unlink(missing_ok=True)
        return 0
    if arguments[0] == "ps":
        sys.stdout.write((STATE / "listed").read_text() if (STATE / "listed").exists() else "")
        return 0
    if arguments[0] == "version" and not (STATE / "engineless").exists():
        sys.stdout.write("29.0\n")
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
