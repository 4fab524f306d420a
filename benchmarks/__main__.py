"""Run benchmarks and print their table: ``python -m benchmarks [NAME...] [--json FILE]``."""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import (
    batch_inference,
    door,
    evaluation,
    history,
    idle,
    machine,
    object_storage,
    pipeline_tasks,
    results,
    scheduler,
    search_quality,
    serving,
    start_up,
    task_overhead,
    trigger,
    tuning_overhead,
)
from benchmarks.results import Comparison

_BENCHMARKS = {
    "start_up": start_up,
    "trigger": trigger,
    "task_overhead": task_overhead,
    "object_storage": object_storage,
    "tuning_overhead": tuning_overhead,
    "search_quality": search_quality,
    "scheduler": scheduler,
    "pipeline_tasks": pipeline_tasks,
    "batch_inference": batch_inference,
    "evaluation": evaluation,
    "serving": serving,
    "door": door,
    "history": history,
    "idle": idle,
}
_LONGEST_SECONDS = 60 * 60


def _summary(name: str) -> str:
    return (_BENCHMARKS[name].__doc__ or "").partition("\n")[0]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="which ones; all if none is named"
    )
    parser.add_argument("--list", action="store_true", help="say which there are, and end")
    parser.add_argument("--quick", action="store_true", help="one repetition: does it work at all")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every value to FILE")
    parser.add_argument(
        "--calm", type=float, default=10.0, metavar="SECONDS",
        help="how long to wait, before each repetition, for others to leave the machine alone",
    )  # fmt: skip
    given = parser.parse_args()
    unknown = sorted(set(given.names) - set(_BENCHMARKS))
    if unknown:
        parser.error(f"there is no {', '.join(unknown)}; there are {', '.join(_BENCHMARKS)}")
    return given


def _end(signum: int, _frame: object) -> None:
    raise SystemExit(f"ended by {signal.Signals(signum).name}")


def _report(
    about: dict[str, Any], measured: dict[str, list[Comparison]], file: Path | None
) -> None:
    lines = [line for found in measured.values() for line in found]
    print(json.dumps(about), results.table(lines), sep="\n\n")
    if file:
        values = {name: [line.as_dict() for line in found] for name, found in measured.items()}
        file.write_text(json.dumps({**about, "benchmarks": values}, indent=2) + "\n")


def main() -> int:
    """Run what was asked for; 1 if a goal is missed."""
    given = _arguments()
    if given.list:
        for name in _BENCHMARKS:
            print(f"{name:<14} {_summary(name)}")
        return 0
    for signum in (signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
        signal.signal(signum, _end)  # so that every context ends what it has started
    signal.alarm(_LONGEST_SECONDS)

    about = machine.describe()
    calm = machine.Calm(given.calm)
    measured: dict[str, list[Comparison]] = {}
    try:
        for name in given.names or _BENCHMARKS:
            print(f"{name}: {_summary(name)} ...", file=sys.stderr, flush=True)
            began = time.monotonic()
            module = _BENCHMARKS[name]
            measured[name] = module.measure(1 if given.quick else module.REPETITIONS, calm)
            print(f"{name}: took {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    finally:
        about["repetitions"] = {"begun": calm.asked, "disturbed by others": calm.disturbed}
        if measured:  # also where it was interrupted: what there is, is shown
            _report(about, measured, given.json)
    return 1 if any(line.met is False for found in measured.values() for line in found) else 0


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
    sys.exit(130)
