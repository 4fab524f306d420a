"""What a long history costs: starting, lists and pages with 50 000 runs, and with 50.

A few real runs and slots are made by the command. Their rows, in all three databases,
are then multiplied in the database, and their folders in the home. One home is measured before and
after, so that both sides have the same schedules, models and experiments.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import time
import urllib.request
import uuid
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sqlalchemy
from sqlalchemy import Connection

from benchmarks import house
from benchmarks.house import House
from benchmarks.machine import Calm
from benchmarks.results import Comparison
from infra.home import Home
from infra.stack import postgres

REPETITIONS = 5
_FEW, _RUNS, _SLOTS = 50, 50_000, 1_000_000
_FAILED_EVERY = 10  # one run in so many
_ALLOWANCE = 1.25  # what two measurements of one thing differ by
_SCHEDULE = "nightly"
_WAIT_SECONDS = 60.0

# What is measured, by its name: the arguments of the command.
_COMMANDS = {
    "runs list": ("runs", "list"),
    "runs list --flow train": ("runs", "list", "--flow", "train"),
    "runs list --schedule": ("runs", "list", "--schedule", _SCHEDULE),
    "runs list --experiment": ("runs", "list", "--experiment", "Default"),
    "runs list --schedule --state": (
        "runs", "list", "--schedule", _SCHEDULE, "--state", "COMPLETE",
    ),
    "runs list --state": ("runs", "list", "--state", "CREATE FAILED"),
    "runs list --name": ("runs", "list", "--name", "bad"),
    "runs list --tag": ("runs", "list", "--tag", "of-no-run"),
    "runs show NAME": ("runs", "show", "good"),
    "experiment list": ("experiment", "list"),
    "experiment show": ("experiment", "show", "Default"),
    "model list": ("model", "list"),
    "schedule list": ("schedule", "list"),
    "schedule show": ("schedule", "show", _SCHEDULE),
    "schedule slots": ("schedule", "slots", _SCHEDULE),
    "schedule slots --fate": ("schedule", "slots", _SCHEDULE, "--fate", "skipped"),
}  # fmt: skip

_Overlay = dict[str, str]

# Tables with a run's rows, by database: the column that names the run, and the columns of a copy
# that differ from the row's; t is the row and m its copy's ids.
_OF_PREFECT: dict[str, tuple[str, _Overlay]] = {
    "flow_run": (
        "id",
        {
            "id": "m.flow_run", "name": "t.name || '-' || m.n", "state_id": "m.state",
            "idempotency_key": "m.flow_run::text",
            "labels": "replace(t.labels::text, :mlflow_run, m.mlflow_run)::jsonb",
            **{
                column: f"t.{column} - m.n * interval '10 minutes'"
                for column in ("created", "expected_start_time", "start_time", "end_time",
                               "state_timestamp")
            },
        },
    ),
    "flow_run_state": (
        "flow_run_id",
        {
            "id": "CASE t.id WHEN :state THEN m.state ELSE gen_random_uuid() END",
            "flow_run_id": "m.flow_run",
            "timestamp": "t.timestamp - m.n * interval '10 minutes'",
        },
    ),
    "log": ("flow_run_id", {"id": "gen_random_uuid()", "flow_run_id": "m.flow_run"}),
}  # fmt: skip
_OF_MLFLOW: dict[str, tuple[str, _Overlay]] = {
    "runs": ("run_uuid", {"run_uuid": "m.mlflow_run", "name": "t.name || '-' || m.n"}),
    "metrics": ("run_uuid", {"run_uuid": "m.mlflow_run"}),
    "latest_metrics": ("run_uuid", {"run_uuid": "m.mlflow_run"}),
    "params": ("run_uuid", {"run_uuid": "m.mlflow_run"}),
    "tags": (
        "run_uuid",
        {
            "run_uuid": "m.mlflow_run",
            "value": "replace(t.value, :flow_run, m.flow_run::text)",
        },
    ),
}


def _engine(home: Path, database: str) -> sqlalchemy.Engine:
    return sqlalchemy.create_engine(postgres.url(Home(home), "psycopg", database))


def _multiply(
    connection: Connection, tables: dict[str, tuple[str, _Overlay]], key: str, of: dict[str, str]
) -> None:
    """Copy a run's rows once for each row of the table ``copies``."""
    # A run and its state refer to each other.
    connection.execute(sqlalchemy.text("SET LOCAL session_replication_role = replica"))
    for table, (column, overlay) in tables.items():
        pairs = ", ".join(f"'{name}', {value}" for name, value in overlay.items())
        connection.execute(
            sqlalchemy.text(
                f'INSERT INTO "{table}" '
                f"SELECT (jsonb_populate_record(t, jsonb_build_object({pairs}))).* "
                f'FROM "{table}" t, copies m WHERE t."{column}"::text = :key'
            ),
            {**of, "key": of[key]},
        )


def _add_runs(home: Path, run: dict[str, Any], first: int, last: int) -> None:
    """Add copies of a run, numbered from ``first`` to ``last``, and their folders."""
    ids = [(str(uuid.uuid4()), uuid.uuid4().hex, str(uuid.uuid4())) for _ in range(first, last)]
    rows = [
        {"n": first + at, "flow_run": one, "mlflow_run": two, "state": three}
        for at, (one, two, three) in enumerate(ids)
    ]
    with _engine(home, "prefect").connect() as connection:
        state = connection.execute(
            sqlalchemy.text("SELECT state_id::text FROM flow_run WHERE id::text = :id"),
            {"id": run["id"]},
        ).scalar_one()
    of = {"flow_run": run["id"], "mlflow_run": run["result"]["mlflow_run_id"], "state": state}
    for database, tables, key in (
        ("prefect", _OF_PREFECT, "flow_run"),
        ("mlflow", _OF_MLFLOW, "mlflow_run"),
    ):
        with _engine(home, database).begin() as connection:
            connection.execute(
                sqlalchemy.text(
                    "CREATE TEMPORARY TABLE copies "
                    "(n int, flow_run uuid, mlflow_run text, state uuid) ON COMMIT DROP"
                )
            )
            connection.execute(
                sqlalchemy.text("INSERT INTO copies VALUES (:n, :flow_run, :mlflow_run, :state)"),
                rows,
            )
            _multiply(connection, tables, key, of)
    runs = Home(home).runs
    for flow_run, _, _ in ids:
        shutil.copytree(runs / run["id"], runs / flow_run, copy_function=os.link)


def _add_slots(home: Path, first: int, last: int) -> None:
    """Add slots with runs that have ended, one minute apart, before those of the schedule."""
    with _engine(home, "modelyard").begin() as connection:
        connection.execute(
            sqlalchemy.text(
                "INSERT INTO schedule_slots SELECT (jsonb_populate_record(t, jsonb_build_object("
                "'slot', t.slot - 60 * n, 'last', t.slot - 60 * n, "
                "'decided_at', t.decided_at - 60 * n, 'run_at', t.run_at - 60 * n, "
                "'flow_run_id', gen_random_uuid()::text))).* "
                "FROM schedule_slots t, "
                "generate_series(CAST(:first AS int), CAST(:last AS int) - 1) n "
                "WHERE t.slot = (SELECT max(slot) FROM schedule_slots WHERE run_state IS NOT NULL)"
            ),
            {"first": first, "last": last},
        )


def _analyze(home: Path) -> None:
    """Do what the database does by itself within minutes."""
    for database in postgres.DATABASES:
        engine = _engine(home, database).execution_options(isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(sqlalchemy.text("VACUUM ANALYZE"))


def _fill(ours: House, made: dict[str, dict[str, Any]], first: int, runs: int, slots: int) -> None:
    """Fill the home up to so many runs and slots; ``first`` of either are there already."""
    failed = runs // _FAILED_EVERY
    _add_runs(ours.root, made["good"], first, runs - failed)
    _add_runs(ours.root, made["bad"], max(1, first // _FAILED_EVERY), failed)
    _add_slots(ours.root, first, slots)
    _analyze(ours.root)


def _make_runs(ours: House) -> dict[str, dict[str, Any]]:
    """Make one run that succeeds, one that fails, and one of a schedule."""
    given = ours.training(ours.root / "out")
    (ours.root / "algorithm" / "bad.py").write_text("raise SystemExit('no')\n")
    bad = {**given, "algorithm": {**given["algorithm"], "entry_point": "bad.py"}}
    for name, parameters in (("good", given), ("bad", bad)):
        file = ours.root / f"{name}.json"
        file.write_text(json.dumps({**parameters, "name": name}))
        ours.modelyard("run", "train", "-f", str(file))
    file = ours.root / "scheduled.json"
    file.write_text(json.dumps(given))
    ours.modelyard(
        "schedule", "create", _SCHEDULE, "train", "--cron", "0 0 0 1 1 *", "-f", str(file)
    )
    ours.modelyard("schedule", "trigger", _SCHEDULE)
    _wait(
        lambda: any(slot.get("state") for slot in ours.modelyard("schedule", "slots", _SCHEDULE))
    )
    _wait(lambda: all(run["seconds"] is not None for run in ours.modelyard("runs", "list")))
    return {name: ours.modelyard("runs", "show", name) for name in ("good", "bad")}


def _wait(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _WAIT_SECONDS
    while not holds():
        if time.monotonic() > deadline:
            raise RuntimeError("The runs do not end.")
        time.sleep(1)


def _seconds(work: Callable[..., object], *arguments: Any) -> float:
    """Seconds of the second call: the first one after a start reads from the disk."""
    work(*arguments)
    began = time.monotonic()
    work(*arguments)
    return time.monotonic() - began


def _read_home(ours: House) -> None:
    """Read the web home as its owner."""
    asked = urllib.request.Request(ours.endpoints.web_url)
    credential = ours.client_environment()["PREFECT_API_AUTH_STRING"]
    asked.add_header("Authorization", f"Basic {base64.b64encode(credential.encode()).decode()}")
    urllib.request.urlopen(asked).read()


def _measure(ours: House, repetitions: int, calm: Calm) -> dict[str, list[float]]:
    times: dict[str, list[float]] = defaultdict(list)
    for _ in range(repetitions):
        calm.wait()
        times["up"].append(ours.up())
        for name, arguments in _COMMANDS.items():
            times[name].append(_seconds(ours.modelyard, *arguments))
        times["the web home"].append(_seconds(_read_home, ours))
        ours.down()
    return times


def measure(repetitions: int, calm: Calm) -> list[Comparison]:
    """Measure one home with few runs, and again with many."""
    with house.temporary() as ours:
        ours.up()
        made = _make_runs(ours)
        _fill(ours, made, 1, _FEW, _FEW)
        ours.down()
        few = _measure(ours, repetitions, calm)
        ours.up()
        _fill(ours, made, _FEW, _RUNS, _SLOTS)
        ours.down()
        many = _measure(ours, repetitions, calm)
    return [
        Comparison(
            f"{name}, with {_RUNS} runs and {_SLOTS} slots", "s",
            many[name], few[name], f"with {_FEW}", "no slower, within what it varies",
            sorted(few[name])[len(few[name]) // 2] * _ALLOWANCE,
        )
        for name in few
    ]  # fmt: skip
