"""Workloads that are shell scripts."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from infra.workloads.base import Backend, Workload
from infra.workloads.exit_status import ExitStatus


def shell(folder: Path, script: str, *arguments: str, **others: Any) -> Workload:
    """A job that is a shell script."""
    folder.mkdir(parents=True, exist_ok=True)
    return Workload(
        name="the-task",
        image="alpine:3",
        command=("sh", "-c", script, "sh"),
        arguments=arguments,
        folder=folder,
        **others,
    )


def run(backend: Backend, job: Workload) -> tuple[ExitStatus, list[str]]:
    """Check a job and run it to its end; how it ended, and its lines."""
    lines: list[str] = []
    backend.check(job)
    return backend.run(job, lines.append, threading.Event()), lines
