"""Kill what takes part in one run, and ask the stack meanwhile."""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import random
import time
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Protocol

import psutil

from tests.e2e.stack import Stack, wait_for

_STARTED = "what the run has started"


def of_home(stack: Stack) -> list[psutil.Process]:
    """Every process that the stack has started, those of a run's scripts and components too.

    The latter have no mark. They have its temporary folder, or are run by an interpreter of it.
    """
    found, place = [], str(stack.home.parent)
    for process in psutil.process_iter():
        try:
            mine = process.environ().get("TMPDIR") == place
            if mine or any(place in word for word in process.cmdline()):
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def _victims(stack: Stack, run: str, kind: str) -> dict[str, list[psutil.Process]]:
    kinds: dict[str, list[psutil.Process]] = collections.defaultdict(list)
    for process in of_home(stack):
        try:
            environment, command = process.environ(), " ".join(process.cmdline())
        except (psutil.Error, OSError):
            continue
        part = environment.get("MODELYARD_PART", "").partition("@")[0]
        if "MODELYARD_RUN" in environment or "MODELYARD_HOME" not in environment:
            kinds[_STARTED].append(process)
        elif part and "leash.py" not in command:
            kinds[part].append(process)
    pid = executor(stack, run)
    if pid:
        kinds[kind] = [psutil.Process(pid)]
    return kinds


def executor(stack: Stack, run: str) -> int | None:
    """The process that executes the run: it has the run's lock open, as its client does."""
    lock = str(stack.home / "runs" / run / "executor.lock")
    for process in of_home(stack):
        with contextlib.suppress(psutil.Error, OSError):
            holds = any(file.path == lock for file in process.open_files())
            if holds and "forkclient.py" not in " ".join(process.cmdline()):
                return int(process.pid)
    return None


def kill_one(stack: Stack, run: str, chance: random.Random, kind: str) -> str:
    """Kill something that takes part in the run; what it was.

    Args:
        stack: The stack.
        run: The run.
        chance: Which it is.
        kind: What the run's own process is called; it is killed more often than others.
    """
    kinds = _victims(stack, run, kind)
    weighted = sorted(kinds) + [kind] * (3 if kind in kinds else 0)
    weighted += [_STARTED] * (2 if _STARTED in kinds else 0)
    if not weighted:
        return "nobody"
    chosen = chance.choice(weighted)
    try:
        chance.choice(kinds[chosen]).kill()
    except psutil.NoSuchProcess:
        return "nobody"
    return chosen


def ask(stack: Stack, *arguments: str) -> Any:
    """Ask until there is an answer: what is asked may just have been killed."""

    def answered() -> Any:
        answer = stack.ask(*arguments)
        return answer.json if answer.code == 0 else None

    return wait_for(answered, 120, " ".join(arguments))


class SoakTally(Protocol):
    """What every soak counts."""

    processes_left: list[str]


@contextlib.contextmanager
def soaked_stack(
    tally: SoakTally, variables: Mapping[str, str] = MappingProxyType({})
) -> Iterator[Stack]:
    """A stack to disturb; at the end it has to be whole again, and ``tally`` gets what is left."""
    stack = Stack()
    stack.extra = dict(variables)
    try:
        stack.do("up", "--detach")
        yield stack
        wait_for(lambda: stack.ask("status").code == 0, 120, "the stack to be whole again")
        stack.do("down")
        tally.processes_left = left(stack)
    finally:
        stack.close()


def left(stack: Stack) -> list[str]:
    """The command lines of what does not end by itself within some seconds."""
    with contextlib.suppress(AssertionError):
        wait_for(lambda: not of_home(stack), 15, "everything to end")
    return [" ".join(process.cmdline())[:300] for process in of_home(stack)]


def main(description: str | None, soak: Callable[[int, int], Any], what: str, count: int) -> None:
    """Run a soak from the command line and print its tally; exit status 1 if it was not ``kept``.

    Args:
        description: What the command says of itself.
        soak: Given how many and a seed, returns the tally.
        what: The option that says how many, without dashes.
        count: How many by default.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(f"--{what}", type=int, default=count)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    arguments = vars(parser.parse_args())
    print(f"seed {arguments['seed']}")
    tally = soak(arguments[what], arguments["seed"])
    print(json.dumps(tally.__dict__, default=dict, indent=1))
    raise SystemExit(0 if tally.kept else 1)
