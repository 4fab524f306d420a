"""``modelyard schedule``."""

from __future__ import annotations

import re
import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from flows import scheduling
from infra.errors import BadInputError
from modelyard import output, parameters, times
from modelyard.connecting import connected
from modelyard.options import Description, File, Json, NewName, Pairs
from registry.views import JsonObject
from schedules import metrics as figures
from schedules import verbs, views
from schedules.interval import read_span
from schedules.trigger import Trigger, read_time
from schedules.views import ScheduleDetailView, ScheduleView, SlotView

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Run deployments at the times of a cron expression or an interval.",
)

_MOST = 100_000  # rows of one answer
_NUMBER = re.compile(r"-?[0-9]{1,18}", re.ASCII)


def _interval(text: str) -> int:
    """The seconds of an interval, which is a number of them or a duration."""
    try:
        return int(text) if _NUMBER.fullmatch(text) else read_span(text)
    except BadInputError as error:
        raise typer.BadParameter(str(error)) from None


Schedule = Annotated[
    str,
    typer.Argument(help="Name of the schedule, its id or the first 8 characters of it."),
]
Deployment = Annotated[
    str,
    typer.Argument(
        help="What it runs: a flow, such as train; a pipeline, NAME or NAME:VERSION; or "
        "FLOW/DEPLOYMENT."
    ),
]
Cron = Annotated[
    str | None,
    typer.Option(
        help="Cron expression: five fields, or six with seconds first; @daily and the like; "
        "@every 1h30m."
    ),
]
Interval = Annotated[
    int | None,
    typer.Option(
        "--interval", parser=_interval, metavar="INTERVAL",
        help="Interval instead of --cron: 90m, 2d, 1h30m, or a number of seconds.",
    ),
]  # fmt: skip
Zone = Annotated[str | None, typer.Option(help="Time zone of the cron expression (IANA name).")]
Start = Annotated[str | None, typer.Option(help="Start of the schedule, exclusive (ISO 8601).")]
End = Annotated[str | None, typer.Option(help="End of the schedule, inclusive (ISO 8601).")]
Stopped = Annotated[bool, typer.Option("--stopped", help="Create it disabled.")]
PolicyPairs = Annotated[
    list[str] | None,
    typer.Option(
        "--policy", help="key=value: catchup, catchup_window, max_catchup_runs, max_concurrency, "
        "overlap, jitter, grace, pause_after_failures.",
    ),
]  # fmt: skip
Last = Annotated[int, typer.Option(min=0, max=_MOST, help="Number of last slots.")]
_SLOT_COLUMNS = ("slot", "kind", "fate", "reason", "run", "state", "decided")
_DELETED_COLUMNS = ("id", "name", "deployment", "when", "timezone", "deleted")
_COLUMNS = ("name", "state", "detail", "deployment", "when", "timezone", "next_slot")


def _trigger(
    cron: str | None, interval: int | None, zone: str | None, start: str | None, end: str | None
) -> JsonObject:
    given = {
        "cron": cron, "interval_seconds": interval, "timezone": zone, "start": start, "end": end,
    }  # fmt: skip
    return {name: value for name, value in given.items() if value is not None}


def _parameters(
    name: str, deployment: str | None, file: Path | None, pairs: list[str] | None
) -> JsonObject:
    """Return changed parameters of a schedule, as the flow of its deployment has them."""
    given = parameters.read(file, pairs)  # what cannot be read is refused before anything is asked
    if not pairs:
        return given
    if deployment is None:
        with connected():
            deployment = views.show(name).deployment
    return parameters.read_for(scheduling.flow_of(deployment), file, pairs)


def _changes(trigger: JsonObject, policy: list[str] | None, parameters_: JsonObject) -> JsonObject:
    """Return the given fields of trigger, policy and parameters; None for none of them."""
    given = {
        "trigger": trigger,
        "policy": parameters.read(None, policy, option="--policy"),
        "parameters": parameters_,
    }
    return {name: value or None for name, value in given.items()}


def _for_people(shown: ScheduleView) -> JsonObject:
    """Return a schedule with its state's detail beside it, slots as listed, and no internals."""
    found = {**shown.to_json(), **views.worded(shown.state, shown.detail)}
    if isinstance(shown, ScheduleDetailView):
        rows = map(_with_range, shown.slots)
        found["slots"] = [{name: row[name] for name in _SLOT_COLUMNS} for row in rows]
        found.pop("scheduler", None)  # who leads is for whoever mends a stack
    return found


def _print_outcome(done: str, shown: ScheduleDetailView, *, as_json_: bool) -> None:
    """Print what was done to a schedule, and when it runs next; the whole of it as JSON.

    Args:
        done: What was done, with ``{name}``, and ``{runs}`` for what it runs when.
        shown: The schedule.
        as_json_: Whether to print JSON.
    """
    if as_json_:
        output.as_json(shown)
        return
    zone = f" ({shown.timezone})" if "cron" in shown.trigger else ""
    runs = f"{shown.deployment}, {shown.when}{zone}"
    output.sentence(done.format(name=shown.name, runs=runs))
    name = shlex.quote(shown.name)
    if shown.next_slot:
        _print_next(shown, shown.next_slot)
    elif shown.state in {views.ScheduleState.DISABLED, views.ScheduleState.CREATE_REQUESTED}:
        why = f": {shown.detail}" if shown.detail else "."
        output.sentence(f"It is disabled{why} Start it: modelyard schedule start {name}")
    else:
        output.sentence(" ".join(views.worded(shown.state, shown.detail).values()).strip())
    output.sentence(f"See it: modelyard schedule show {name}")


def _print_next(shown: ScheduleDetailView, slot: str | None) -> None:
    """Print when a schedule runs next; missed slots, which are due at once, as their number."""
    if slot and datetime.fromisoformat(slot) <= datetime.now(UTC):
        with connected():
            missed, slot = views.backlog(shown.id)
        if missed:
            slots_run = "slot runs" if missed == 1 else "slots run"
            catchup = shown.policy["catchup"]
            output.sentence(f"{missed} missed {slots_run} first (catchup: {catchup}).")
    if slot:
        output.sentence(f"Next run: {times.local(slot)}")


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
    """Run a deployment at the slots of a cron expression or an interval."""
    made = scheduling.create(
        name, deployment,
        cron=cron, interval_seconds=interval, timezone=timezone, start=start, end=end,
        policy=parameters.read(None, policy, option="--policy"),
        parameters=parameters.read_for(scheduling.flow_of(deployment), file, parameter),
        description=description or "", enabled=not stopped,
    )  # fmt: skip
    _print_outcome("Created {name}: {runs}.", made, as_json_=json)


@app.command("list")
def list_(
    deleted: Annotated[
        bool, typer.Option("--deleted", help="List deleted schedules instead.")
    ] = False,
    json: Json = False,
) -> None:
    """List every schedule."""
    with connected():
        found = views.list_all(deleted=deleted)
    columns = _DELETED_COLUMNS if deleted else _COLUMNS
    output.rows(found if json else list(map(_for_people, found)), columns, as_json_=json)


@app.command()
def show(
    name: Schedule,
    following: Annotated[
        int, typer.Option("--next", "-n", min=0, max=_MOST, help="Number of next slots.")
    ] = 5,
    last: Last = 10,
    json: Json = False,
) -> None:
    """Show a schedule with its next slots, and its last ones with their fates."""
    with connected():
        found = scheduling.show(name, following=following, last=last)
    output.thing(found if json else _for_people(found), as_json_=json)


@app.command()
def slots(
    name: Schedule,
    last: Last = 20,
    fate: Annotated[
        str | None, typer.Option(help="Only slots with this fate: created, skipped or waiting.")
    ] = None,
    json: Json = False,
) -> None:
    """List the last slots with their fates, newest first."""
    with connected():
        found = scheduling.slots_of(name, last=last, fate=fate)
    output.rows(found if json else list(map(_with_range, found)), _SLOT_COLUMNS, as_json_=json)


def _with_range(row: SlotView) -> JsonObject:
    """Return slots for people: several that share their fate as a range."""
    several = f" to {row.until}, {row.count} slots" if row.until else ""
    return {**row.to_json(), "slot": f"{row.slot}{several}"}


@app.command()
def metrics(json: Json = False) -> None:
    """Print metrics for Prometheus: lateness, backlog, fates, leader, next slots.

    With --json a list of samples: {name, labels, value}.
    """
    with connected():
        if json:
            output.as_json(figures.samples())
        else:
            sys.stdout.write(figures.text())


@app.command()
def update(
    name: Schedule,
    new_name: NewName = None,
    deployment: Annotated[str | None, typer.Option(help="New deployment.")] = None,
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
    given = _parameters(name, deployment, file, parameter)
    changes = _changes(_trigger(cron, interval, timezone, start, end), policy, given)
    if not any(changes.values()) and (new_name, deployment, description) == (None, None, None):
        raise BadInputError(
            "There is nothing to change.", "Give --name, --cron, --policy, -p or another option."
        )
    changed = scheduling.update(
        name, new_name=new_name, description=description, deployment=deployment, **changes
    )
    _print_outcome("Changed {name}: {runs}.", changed, as_json_=json)


@app.command("start")
def start_(name: Schedule, json: Json = False) -> None:
    """Enable a schedule; slots missed while it was stopped follow its catch-up policy."""
    with connected():
        started = verbs.start(name)
    _print_outcome("Started {name}: {runs}.", started, as_json_=json)


@app.command()
def stop(name: Schedule, json: Json = False) -> None:
    """Disable a schedule; active runs continue."""
    with connected():
        stopped = verbs.stop(name)
    _print_outcome("Stopped {name}; its active runs continue.", stopped, as_json_=json)


@app.command()
def copy(
    name: Schedule,
    new_name: Annotated[str, typer.Argument(help="Name of the copy.")],
    deployment: Annotated[str | None, typer.Option(help="Another deployment.")] = None,
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
    """Copy a schedule, with changes; the copy's slots count from now."""
    given = _parameters(name, deployment, file, parameter)
    changes = _changes(_trigger(cron, interval, timezone, start, end), policy, given)
    made = scheduling.copy(
        name, new_name, description=description, deployment=deployment,
        enabled=False if stopped else None, **changes,
    )  # fmt: skip
    _print_outcome("Copied to {name}: {runs}.", made, as_json_=json)


@app.command()
def trigger(name: Schedule, json: Json = False) -> None:
    """Run it once now, beside its slots."""
    with connected():
        output.thing(verbs.trigger_now(name), as_json_=json)
    _print_slots_hint(name, as_json_=json)


@app.command()
def backfill(
    name: Schedule,
    start: Annotated[str, typer.Option(help="Start of the range, exclusive (ISO 8601).")],
    end: Annotated[str, typer.Option(help="End of the schedule, inclusive (ISO 8601).")],
    json: Json = False,
) -> None:
    """Run the slots of a past range that have no run."""
    with connected():
        output.thing(verbs.backfill(name, start, end), as_json_=json)
    _print_slots_hint(name, as_json_=json)


def _print_slots_hint(name: str, *, as_json_: bool) -> None:
    if not as_json_:
        output.sentence(f"Its runs: modelyard schedule slots {shlex.quote(name)}")


@app.command()
def delete(name: Schedule, json: Json = False) -> None:
    """Delete a schedule without active runs; the record of its slots stays."""
    with connected():
        output.thing(verbs.delete(name), as_json_=json)


@app.command()
def preview(
    cron: Cron = None,
    interval: Interval = None,
    timezone: Zone = None,
    start: Start = None,
    end: End = None,
    after: Annotated[
        str | None,
        typer.Option(help="List slots after this time (ISO 8601); the present if left out."),
    ] = None,
    count: Annotated[int, typer.Option("-n", min=1, max=_MOST, help="Number of slots.")] = 5,
    json: Json = False,
) -> None:
    """List the next slots, without creating a schedule."""
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
        output.sentence(found.notice)
    for slot in slots:
        output.sentence(times.local(slot))
