"""``modelyard schedule``."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from flows import scheduling
from flows.connection import connected
from infra.errors import BadInputError
from modelyard import output, parameters
from modelyard.options import Description, File, Json, NewName, Pairs
from schedules import metrics as figures
from schedules import verbs, views
from schedules.trigger import Trigger, read_time

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Schedules.")

_MOST = 100_000  # rows of one answer

Schedule = Annotated[str, typer.Argument(help="The schedule's name or id.")]
Deployment = Annotated[
    str, typer.Argument(help="What it runs: a flow, such as train, or flow/deployment.")
]
Cron = Annotated[
    str | None,
    typer.Option(help="Six fields, seconds first; or five; or @daily and the like; @every 1h30m."),
]
Interval = Annotated[
    int | None, typer.Option("--interval", help="Instead: the seconds from slot to slot.")
]
Zone = Annotated[str | None, typer.Option(help="Whose clocks a cron expression is read by.")]
Start = Annotated[str | None, typer.Option(help="Slots are after this: ISO 8601.")]
End = Annotated[str | None, typer.Option(help="And not after this.")]
Stopped = Annotated[bool, typer.Option("--stopped", help="Do not start it yet.")]
PolicyPairs = Annotated[
    list[str] | None,
    typer.Option(
        "--policy", help="key=value: catchup, catchup_window, max_catchup_runs, max_concurrency, "
        "overlap, jitter, grace, pause_after_failures.",
    ),
]  # fmt: skip
Last = Annotated[int, typer.Option(min=0, max=_MOST, help="How many of the last slots.")]
_SLOT_COLUMNS = ("slot", "kind", "fate", "reason", "run", "state", "decided")
_DELETED_COLUMNS = ("id", "name", "deployment", "when", "timezone", "deleted")
_COLUMNS = ("name", "state", "detail", "deployment", "when", "timezone", "next_slot")


def _trigger(
    cron: str | None, interval: int | None, zone: str | None, start: str | None, end: str | None
) -> dict[str, Any]:
    given = {
        "cron": cron, "interval_seconds": interval, "timezone": zone, "start": start, "end": end,
    }  # fmt: skip
    return {name: value for name, value in given.items() if value is not None}


def _changes(
    trigger: dict[str, Any],
    policy: list[str] | None,
    file: Path | None,
    parameter: list[str] | None,
) -> dict[str, Any]:
    """What is given of a trigger, a policy and parameters; None where nothing is."""
    given = {
        "trigger": trigger,
        "policy": parameters.read(None, policy, option="--policy"),
        "parameters": parameters.read(file, parameter),
    }
    return {name: value or None for name, value in given.items()}


def _worded(shown: dict[str, Any]) -> dict[str, Any]:
    """A schedule as people read it: its state in one word, and the bracketed one with it."""
    return {**shown, **views.worded(shown["state"], shown["detail"])}


def _told(shown: dict[str, Any], *, as_json_: bool) -> None:
    output.thing(shown if as_json_ else _worded(shown), as_json_=as_json_)


@app.command()
def create(
    name: Schedule,
    deployment: Deployment,
    cron: Cron = None,
    interval: Interval = None,
    timezone: Zone = None,
    start: Start = None,
    end: End = None,
    policy: PolicyPairs = None,
    file: File = None,
    parameter: Pairs = None,
    description: Description = None,
    stopped: Stopped = False,
    json: Json = False,
) -> None:
    """Have a deployment run at the slots of a cron expression or of an interval."""
    made = scheduling.create(
        name, deployment,
        cron=cron, interval_seconds=interval, timezone=timezone, start=start, end=end,
        policy=parameters.read(None, policy, option="--policy"),
        parameters=parameters.read(file, parameter),
        description=description or "", enabled=not stopped,
    )  # fmt: skip
    _told(made, as_json_=json)


@app.command("list")
def list_(
    deleted: Annotated[bool, typer.Option("--deleted", help="Those that were deleted.")] = False,
    json: Json = False,
) -> None:
    """Every schedule."""
    with connected():
        found = views.list_all(deleted=deleted)
    columns = _DELETED_COLUMNS if deleted else _COLUMNS
    output.rows(found if json else list(map(_worded, found)), columns, as_json_=json)


@app.command()
def show(
    name: Schedule,
    following: Annotated[
        int, typer.Option("--next", "-n", min=0, max=_MOST, help="How many next slots.")
    ] = 5,
    last: Last = 10,
    json: Json = False,
) -> None:
    """A schedule with its next slots, and what became of the last ones."""
    with connected():
        found = views.show(name, following=following, last=last)
    _told(found, as_json_=json)


@app.command()
def slots(
    name: Schedule,
    last: Last = 20,
    fate: Annotated[
        str | None, typer.Option(help="Only those of this fate: created, skipped, waiting.")
    ] = None,
    json: Json = False,
) -> None:
    """What became of the last slots, the newest first, and why."""
    with connected():
        found = views.slots_of(name, last=last, fate=fate)
    output.rows(found if json else list(map(_brief, found)), _SLOT_COLUMNS, as_json_=json)


def _brief(row: dict[str, Any]) -> dict[str, Any]:
    """Slots as people read them: several that share their fate as a range."""
    several = f" to {row['until']}, {row['count']} slots" if "until" in row else ""
    return {**row, "slot": row["slot"] + several}


@app.command()
def metrics() -> None:
    """What Prometheus is told: lateness, backlog, fates, who leads, next slots."""
    with connected():
        sys.stdout.write(figures.text())


@app.command()
def update(
    name: Schedule,
    new_name: NewName = None,
    deployment: Annotated[str | None, typer.Option(help="What it runs from now on.")] = None,
    cron: Cron = None,
    interval: Interval = None,
    timezone: Zone = None,
    start: Start = None,
    end: End = None,
    policy: PolicyPairs = None,
    file: File = None,
    parameter: Pairs = None,
    description: Description = None,
    json: Json = False,
) -> None:
    """Change a schedule in place; its slots and its history stay. --end "" takes an end away."""
    changes = _changes(_trigger(cron, interval, timezone, start, end), policy, file, parameter)
    if not any(changes.values()) and (new_name, deployment, description) == (None, None, None):
        raise BadInputError(
            "There is nothing to change.", "Give --name, --cron, --policy, -p or another option."
        )
    changed = scheduling.update(
        name, new_name=new_name, description=description, deployment=deployment, **changes
    )
    _told(changed, as_json_=json)


@app.command("start")
def start_(name: Schedule, json: Json = False) -> None:
    """Run its slots again; those missed meanwhile as its catch-up says."""
    with connected():
        _told(verbs.start(name), as_json_=json)


@app.command()
def stop(name: Schedule, json: Json = False) -> None:
    """Run none of its slots from now on; its runs go on."""
    with connected():
        _told(verbs.stop(name), as_json_=json)


@app.command()
def copy(
    name: Schedule,
    new_name: Annotated[str, typer.Argument(help="The new schedule's name.")],
    deployment: Annotated[str | None, typer.Option(help="What it runs.")] = None,
    cron: Cron = None,
    interval: Interval = None,
    timezone: Zone = None,
    start: Start = None,
    end: End = None,
    policy: PolicyPairs = None,
    file: File = None,
    parameter: Pairs = None,
    description: Description = None,
    stopped: Stopped = False,
    json: Json = False,
) -> None:
    """Make a schedule with everything of another but what is given; its slots count from now."""
    changes = _changes(_trigger(cron, interval, timezone, start, end), policy, file, parameter)
    made = scheduling.copy(
        name, new_name, description=description, deployment=deployment,
        enabled=False if stopped else None, **changes,
    )  # fmt: skip
    _told(made, as_json_=json)


@app.command()
def trigger(name: Schedule, json: Json = False) -> None:
    """Have it run once now, beside its slots."""
    with connected():
        output.thing(verbs.trigger_now(name), as_json_=json)


@app.command()
def backfill(
    name: Schedule,
    start: Annotated[str, typer.Option(help="Slots after this: ISO 8601.")],
    end: Annotated[str, typer.Option(help="And not after this.")],
    json: Json = False,
) -> None:
    """Run the slots of a past range that have no run."""
    with connected():
        output.thing(verbs.backfill(name, start, end), as_json_=json)


@app.command()
def delete(name: Schedule, json: Json = False) -> None:
    """Delete a schedule none of whose runs goes on; what became of its slots stays on record."""
    with connected():
        output.thing(verbs.delete(name), as_json_=json)


@app.command()
def preview(
    cron: Cron = None,
    interval: Interval = None,
    timezone: Zone = None,
    start: Start = None,
    end: End = None,
    after: Annotated[str | None, typer.Option(help="Slots after this; the present.")] = None,
    count: Annotated[int, typer.Option("-n", min=1, max=_MOST, help="How many.")] = 5,
    json: Json = False,
) -> None:
    """The next slots, without making a schedule."""
    now = datetime.now(UTC).replace(microsecond=0)
    given = _trigger(cron, interval, timezone, start, end)
    since = read_time(after, given.get("timezone", "UTC"), "after") if after else now
    found = Trigger(**{"since": since, **given})
    found.check_fires()
    slots = views.preview(found, since, count)
    if json:
        output.as_json(slots)
        return
    if found.notice:
        output.console.print(found.notice)
    for slot in slots:
        output.console.print(slot)
