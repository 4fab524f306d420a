"""What containers have said, read back from what their nodes keep."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.cluster.containers import Container
from tests.cluster.pod_run import PodRun
from tests.cluster.refusals import Refusal

_LOOK = 0.05


class LogRefused(Refusal):
    """There is no such log."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(code, "BadRequest" if code == 400 else "InternalError", message)


@dataclass(frozen=True)
class Part:
    """Which part of a log is wanted."""

    follow: bool = False
    tail: int | None = None
    since: float | None = None
    """Seconds back from now."""
    since_time: str = ""
    previous: bool = False
    timestamps: bool = False

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Part:
        """What a request's options ask for, by the names that the API gives them."""
        return cls(
            follow=bool(options.get("follow")),
            tail=options.get("tailLines"),
            since=options.get("sinceSeconds"),
            since_time=options.get("sinceTime") or "",
            previous=bool(options.get("previous")),
            timestamps=bool(options.get("timestamps")),
        )


def container_of(run: PodRun, name: str) -> Container:
    """The container that is meant; the only one where none is named.

    Raises:
        LogRefused: There is none of the name, or several and no name.
    """
    if not name:
        if len(run.every) == 1:
            return run.mains[0]
        names = " ".join(one.name for one in run.mains)
        raise LogRefused(
            400,
            f"a container name must be specified for pod {run.name}, choose one of: [{names}]",
        )
    for one in run.every:
        if one.name == name:
            return one
    raise LogRefused(400, f"container {name} is not valid for pod {run.name}")


def file_of(run: PodRun, one: Container, part: Part) -> Path:
    """The file with what a container has said.

    Raises:
        LogRefused: It has not been started, or not been restarted.
    """
    if part.previous:
        number = one.restarts - 1 if "waiting" not in one.state else one.restarts
        path = one.log_file(number)
        if number < 0 or not path.exists():
            raise LogRefused(
                400,
                f'previous terminated container "{one.name}" in pod "{run.name}" not found',
            )
        return path
    if "waiting" in one.state and not one.last:
        reason = one.state["waiting"]["reason"]
        told = {
            "ContainerCreating": "is waiting to start: ContainerCreating",
            "PodInitializing": "is waiting to start: PodInitializing",
            "ErrImagePull": "is waiting to start: image can't be pulled",
            "ImagePullBackOff": "is waiting to start: trying and failing to pull image",
        }.get(reason, f"is waiting to start: {reason}")
        raise LogRefused(400, f'container "{one.name}" in pod "{run.name}" {told}')
    return one.log_file(one.restarts)


def _moment(text: str) -> datetime:
    """A moment, of what Kubernetes and clients of it write; below microseconds is left out."""
    whole, _, rest = text.replace("Z", "+00:00").partition(".")
    if rest:
        digits = rest.rstrip("0123456789:+-") or rest
        zone = max(digits.find("+"), digits.find("-"))
        fraction, offset = (digits[:zone], digits[zone:]) if zone >= 0 else (digits, "+00:00")
        whole = f"{whole}.{fraction[:6].ljust(6, '0')}{offset}"
    found = datetime.fromisoformat(whole)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _told(entry: bytes, timestamps: bool) -> bytes:
    moment, _, whole, line = entry.split(b" ", 3)
    end = b"\n" if whole == b"F" else b""
    return (moment + b" " if timestamps else b"") + line + end


def _begin(part: Part) -> datetime | None:
    if part.since_time:
        return _moment(part.since_time)
    if part.since is not None:
        return datetime.now(UTC) - timedelta(seconds=part.since)
    return None


async def lines(path: Path, part: Part, goes_on: Callable[[], bool]) -> AsyncIterator[bytes]:
    """The wanted part of a log; while ``goes_on``, also what is added if it is followed."""
    begin, at, first = _begin(part), 0, True
    while True:
        more = part.follow and goes_on()  # asked before it is read, so that the last is read
        entries, at = _read(path, at)
        if begin is not None:
            entries = [one for one in entries if _moment(one.split(b" ", 1)[0].decode()) >= begin]
        if first and part.tail is not None:
            entries = entries[-part.tail :] if part.tail > 0 else []
        first = False
        for entry in entries:
            yield _told(entry, part.timestamps)
        if not more:
            return
        await asyncio.sleep(_LOOK)


def _read(path: Path, at: int) -> tuple[list[bytes], int]:
    """The whole entries of a file from a place on, and where they end."""
    if not path.exists():
        return [], at
    with path.open("rb") as file:
        file.seek(at)
        content = file.read()
    end = content.rfind(b"\n") + 1
    return content[:end].split(b"\n")[:-1], at + end
