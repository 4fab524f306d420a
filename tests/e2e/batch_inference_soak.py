"""Kill what takes part in a batch inference at random, retry it until it is complete, and count.

``python -m tests.e2e.batch_inference_soak [--kills 100] [--seed N]``. Victims are the run's own
process, its shards and their predictors, a server of the stack, the object storage for some
seconds, and all processes of the stack at once, after which somebody types `modelyard up` again.
The promise: every record of the input is once in a result or once in the errors, in the input's
order and layout; counts and checksums of the manifest hold; predictions are the model's; nothing
of a part that was done is predicted again; no partial file and no process is left.
"""

from __future__ import annotations

import collections
import contextlib
import hashlib
import json
import random
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3.session
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from botocore.config import Config

from tests.e2e.disturbing import ask, executor, main, of_home, soaked_stack
from tests.e2e.stack import Stack, wait_for
from tests.infra.storage.server import Server

_FORMATS = ("jsonl", "json", "csv", "parquet")
_ENDED = {"COMPLETE", "FAIL BATCH INFERENCE", "STOPPED", "TIMED OUT", "CREATE FAILED"}
_COUNTS = ("rows", "predicted", "failed")
_MOST_ATTEMPTS = 40
_LONGEST_SECONDS = 600
_STRIDE = 10**6  # a record is called by its file's number times this, and its row
_PAD = "p" * 1000
_SECRET = "secret-of-the-storage"
_BUCKET = "box"
# It predicts twice a record's `x`, fails where that is unlucky, and leaves a line in a ledger.
_MODEL = """
import os, time
def load(model_dir, parameters):
    return os.open({ledger!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
def predict(inputs, model):
    x = inputs["x"]
    if (x % 5003 == 7).any():
        raise ValueError("unlucky")
    time.sleep(len(x) * {seconds!r})
    os.write(model, x.astype("int64").tobytes())
    return {{"prediction": 2 * x}}
"""


@dataclass
class Tally:
    """What happened.

    Attributes:
        kills: What was killed, and how often.
        ends: How attempts ended.
        runs: How many batch inferences there were.
        records: Records of all their inputs.
        predicted_again: How often one was predicted that had been before, in a part not yet done.
        broken: What should not be.
        processes_left: What was left some seconds after the stack was down.
    """

    kills: collections.Counter[str] = field(default_factory=collections.Counter)
    ends: collections.Counter[str] = field(default_factory=collections.Counter)
    runs: int = 0
    records: int = 0
    predicted_again: int = 0
    broken: list[str] = field(default_factory=list)
    processes_left: list[str] = field(default_factory=list)

    @property
    def kept(self) -> bool:
        """Whether the promise was kept."""
        return not self.broken and not self.processes_left


@dataclass(frozen=True)
class DataSet:
    """An input: rows of each file by its name, in the order of names."""

    input_format: str
    rows: dict[str, int]

    @classmethod
    def drawn(cls, chance: random.Random, input_format: str, largest: int) -> DataSet:
        """One of a large file, which has several parts, and of small ones in folders."""
        small = {f"d{at % 2}/part-{at}.{input_format}": chance.randint(1, 900) for at in range(6)}
        rows = {f"big.{input_format}": largest, **small}
        return cls(input_format, dict(sorted(rows.items())))

    def write(self, folder: Path) -> None:
        """Write the files."""
        for number, (name, rows) in enumerate(self.rows.items()):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            names = range(number * _STRIDE, number * _STRIDE + rows)
            if self.input_format == "parquet":
                columns = {"id": [f"k{x}" for x in names], "x": list(names), "pad": [_PAD] * rows}
                pq.write_table(
                    pa.table(columns), folder / name, row_group_size=5000, use_dictionary=False
                )
                continue
            before, between, after = {
                "jsonl": ("", "\n", "\n"), "json": ("[", ",\n", "]\n"),
                "csv": ("id,x,pad\n", "\n", "\n"),
            }[self.input_format]  # fmt: skip
            with (folder / name).open("w") as file:
                file.write(before)
                for at, x in enumerate(names):
                    file.write((between if at else "") + self._text(x))
                file.write(after)

    def _text(self, x: int) -> str:
        if self.input_format == "csv":
            return (
                f'k{x},{x},"{_PAD}\n",surplus' if self._is_malformed(x) else f'k{x},{x},"{_PAD}"'
            )
        return f'{{"id": "k{x}", "x": {"tru" if self._is_malformed(x) else x}, "pad": "{_PAD}"}}'

    def _is_malformed(self, x: int) -> bool:
        return self.input_format != "parquet" and x % 4001 == 5

    def expected(self, name: str) -> tuple[list[dict[str, Any]], list[int]]:
        """The results of a file, and the rows that fail."""
        first = list(self.rows).index(name) * _STRIDE
        results, failed = [], []
        for row in range(self.rows[name]):
            x = first + row
            if x % 5003 == 7 or self._is_malformed(x):
                failed.append(row)
            else:
                results.append({"row": row, "key": f"k{x}", "prediction": 2 * x})
        return results, failed


class Box:
    """A bucket of an object storage that may be out of order."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.uri = f"obs://{server.host}/{_BUCKET}"
        self._client = boto3.session.Session().client(
            "s3", endpoint_url=f"http://{server.host}", region_name="us-east-1",
            aws_access_key_id="key", aws_secret_access_key=_SECRET,
            config=Config(s3={"addressing_style": "path"}),
        )  # fmt: skip
        self._client.create_bucket(Bucket=_BUCKET)

    def upload(self, folder: Path, prefix: str) -> None:
        """Upload a folder."""
        for path in folder.rglob("*"):
            if path.is_file():
                key = f"{prefix}/{path.relative_to(folder)}"
                self._client.upload_file(str(path), _BUCKET, key)

    def download(self, prefix: str, folder: Path) -> None:
        """Download all below a prefix."""
        for one in self._client.list_objects_v2(Bucket=_BUCKET, Prefix=f"{prefix}/")["Contents"]:
            path = folder / one["Key"].removeprefix(f"{prefix}/")
            path.parent.mkdir(parents=True, exist_ok=True)
            self._client.download_file(_BUCKET, one["Key"], str(path))

    @property
    def uploads(self) -> int:
        """How many uploads have begun and neither ended nor been given up."""
        return len(self._client.list_multipart_uploads(Bucket=_BUCKET).get("Uploads", ()))

    def clear(self) -> None:
        """Remove everything."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=_BUCKET)
        for key in [one["Key"] for page in pages for one in page.get("Contents", ())]:
            self._client.delete_object(Bucket=_BUCKET, Key=key)

    def fail(self, seconds: float) -> None:
        """Answer nothing but errors for so long."""
        self._server.lie = lambda answer: answer.fail(503, "ServiceUnavailable")
        time.sleep(seconds)
        self._server.lie = None


class Ledger:
    """What the model has predicted, one record after another, as its processes wrote it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def clear(self) -> None:
        self.path.write_bytes(b"")

    def __len__(self) -> int:
        return self.path.stat().st_size // 8

    def read(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        return np.frombuffer(self.path.read_bytes()[: len(self) * 8], dtype=np.int64)


class DoneParts:
    """Parts of a run that were seen to be done, and how long the ledger was by then at most."""

    def __init__(self, folder: Path, ledger: Ledger) -> None:
        self._folder = folder
        self._ledger = ledger
        self._lengths: dict[int, int] = {}
        self._plan: dict[str, Any] = {}

    def look(self) -> None:
        """See which are done now."""
        with contextlib.suppress(FileNotFoundError):
            self._plan = self._plan or json.loads((self._folder / "plan.json").read_bytes())
        new = {int(path.stem) for path in self._folder.glob("parts/????????.json")}
        for part in new - self._lengths.keys():
            self._lengths[part] = len(self._ledger)

    def predicted_again(self) -> int:
        """How many of their records were predicted after they had been done."""
        predicted, count = self._ledger.read(), 0
        for number, file in enumerate(self._plan["files"]):
            for at, part in enumerate(file["parts"], file["first"]):
                first = number * _STRIDE + part["first_row"]
                later = predicted[self._lengths.get(at, len(predicted)) :]
                count += np.count_nonzero((first <= later) & (later < first + part["rows"]))
        return count


def kinds_of(stack: Stack, run: str) -> dict[str, list[psutil.Process]]:
    """The processes of the stack and of a batch inference, by what they are."""
    kinds: dict[str, list[psutil.Process]] = collections.defaultdict(list)
    for process in of_home(stack):
        with contextlib.suppress(psutil.Error, OSError):
            command = " ".join(process.cmdline())
            part = process.environ().get("MODELYARD_PART", "").partition("@")[0]
            if "tasks.batch_inference.shard" in command:
                kinds["shard"].append(process)
            elif "modelyard_runtime" in command:
                kinds["predictor"].append(process)
            elif part and "leash.py" not in command:
                kinds["part of the stack"].append(process)
    if pid := executor(stack, run):
        kinds["run"] = [psutil.Process(pid)]
    return kinds


_WEIGHTS = {"shard": 4, "predictor": 4, "run": 4, "part of the stack": 2, "store": 3, "stack": 1}


def kill_one(
    stack: Stack, run: str, chance: random.Random, box: Box | None, victims: set[str]
) -> str:
    """Kill something that takes part in the run, of the kinds in ``victims``; what it was."""
    kinds = {kind: found for kind, found in kinds_of(stack, run).items() if kind in victims}
    names = [*sorted(kinds), *(["store"] if box else []), *({"stack"} & victims)]
    if not names:
        return "nobody"
    (kind,) = chance.choices(names, [_WEIGHTS[name] for name in names])
    if kind == "store" and box:
        box.fail(chance.choice([1, 5, 20]))
    elif kind == "stack":
        for process in of_home(stack):
            with contextlib.suppress(psutil.Error):
                process.kill()
        stack.do("up", "--detach")
    else:
        try:
            chance.choice(kinds[kind]).kill()
        except psutil.NoSuchProcess:
            return "nobody"
    return kind


@dataclass
class Soak:
    """Batch inferences of one stack.

    Attributes:
        stack: The stack.
        place: A folder for inputs, outputs and the model.
        chance: What happens.
        box: An object storage; None without.
        victims: Kinds of what is killed.
        largest: Rows of the largest file.
        seconds: What the model takes for a record.
        tally: What happened.
    """

    stack: Stack
    place: Path
    chance: random.Random
    box: Box | None
    victims: set[str]
    largest: int
    seconds: float
    tally: Tally = field(default_factory=Tally)

    def __post_init__(self) -> None:
        """Register the model."""
        self.place.mkdir(exist_ok=True)
        self.ledger = Ledger(self.place / "ledger")
        (self.place / "model").mkdir()
        code = _MODEL.format(ledger=str(self.ledger.path), seconds=self.seconds)
        (self.place / "model" / "predictor.py").write_text(code)
        given = ("--uri", str(self.place / "model"), "--framework", "custom")
        self.stack.do("model", "create", "soaked", *given)

    def one(self, kills: int) -> None:
        """One batch inference, disturbed until it is complete."""
        data = DataSet.drawn(self.chance, _FORMATS[self.tally.runs % len(_FORMATS)], self.largest)
        box = self.box if self.tally.runs % 2 else None
        number = self.tally.runs
        source, target = self.place / f"in-{number}", self.place / f"out-{number}"
        data.write(source)
        self.ledger.clear()
        if box:
            box.upload(source, source.name)
        base = box.uri if box else str(self.place)
        run = self._start(
            {
                "name": f"soaked-{number}", "model": "soaked/1", "key": "id",
                "input_uri": f"{base}/{source.name}/", "output_uri": f"{base}/{target.name}/",
                "input_format": data.input_format, "pods": self.chance.randint(1, 3),
            }
        )  # fmt: skip
        parts = DoneParts(self.stack.home / "runs" / run, self.ledger)
        state = self._disturb(run, kills, box, parts)
        if box:
            box.download(target.name, target)
            if box.uploads:
                self.tally.broken.append(f"{run}: {box.uploads} uploads are left")
        self.tally.runs += 1
        if state == "COMPLETE":
            self.tally.broken += [f"{run}: {what}" for what in _faults(data, target)]
        else:
            self.tally.broken.append(f"{run}: it ended as {state}")
        self._count(run, parts, data)
        for folder in (source, target):
            shutil.rmtree(folder)
        if box:
            box.clear()

    def _start(self, parameters: dict[str, Any]) -> str:
        given = [part for name, value in parameters.items() for part in ("-p", f"{name}={value}")]

        def submit() -> str | None:
            answer = self.stack.ask("run", "batch-inference", *given)
            if answer.code == 0:
                return str(answer.json["flow_run_id"])
            rows = ask(self.stack, "runs", "list")
            return next(
                (str(one["id"]) for one in rows if one["name"] == parameters["name"]), None
            )

        return wait_for(submit, 180, "the run to be accepted")

    def _disturb(self, run: str, kills: int, box: Box | None, parts: DoneParts) -> str:
        """Kill until so many were killed, and retry until it is complete; how it ended."""
        for _ in range(_MOST_ATTEMPTS):
            deadline = time.monotonic() + _LONGEST_SECONDS
            while (found := ask(self.stack, "runs", "show", run))["state"] not in _ENDED:
                if time.monotonic() > deadline:
                    return f"{found['state']} for {_LONGEST_SECONDS} s"
                time.sleep(self.chance.uniform(0.05, 1.5))
                parts.look()
                if kills and found["state"] != "CREATE REQUESTED":
                    kills -= 1
                    victim = kill_one(self.stack, run, self.chance, box, self.victims)
                    self.tally.kills[victim] += 1
            parts.look()
            reason = "" if found["state"] == "COMPLETE" else found["message"].partition(":")[0]
            self.tally.ends[f"{found['state']} {reason[:80]}".strip()] += 1
            if found["state"] == "COMPLETE":
                break
            ask(self.stack, "runs", "retry", run)
        return str(found["state"])

    def _count(self, run: str, parts: DoneParts, data: DataSet) -> None:
        """Count what was predicted, and see what is left."""
        predicted = self.ledger.read()
        self.tally.records += sum(data.rows.values())
        self.tally.predicted_again += len(predicted) - len(np.unique(predicted))
        if again := parts.predicted_again():
            self.tally.broken.append(f"{run}: {again} records of parts that were done")
        with contextlib.suppress(AssertionError):
            wait_for(lambda: not self._left(run), 10, "shards and predictors to end")
        if there := self._left(run):
            self.tally.broken.append(f"{run}: {there} are left")

    def _left(self, run: str) -> list[str]:
        kinds = kinds_of(self.stack, run)
        return sorted({"shard", "predictor"} & kinds.keys())


def _faults(data: DataSet, target: Path) -> Iterator[str]:
    """What is wrong with an output."""
    manifest = json.loads((target / "manifest.json").read_bytes())
    errors = [json.loads(line) for line in (target / "errors.jsonl").read_bytes().splitlines()]
    suffix = ".json" if data.input_format == "json" else ".jsonl"
    names = {name: name.removesuffix(f".{data.input_format}") + suffix for name in data.rows}
    there = {str(path.relative_to(target)) for path in target.rglob("*") if path.is_file()}
    if there != {"manifest.json", "errors.jsonl", *names.values()}:
        yield f"its files are {sorted(there)}"
    if [one["input"] for one in manifest["files"]] != list(data.rows):
        yield f"the manifest has {[one['input'] for one in manifest['files']]}"
    for file in [*manifest["files"], manifest["errors"]]:
        content = (target / file["name"]).read_bytes()
        if (len(content), hashlib.sha256(content).hexdigest()) != (file["bytes"], file["sha256"]):
            yield f"{file['name']} is not what the manifest says"
    for file in manifest["files"]:
        results, failed = data.expected(file["input"])
        text = (target / file["name"]).read_text()
        lines = json.loads(text) if suffix == ".json" else map(json.loads, text.splitlines())
        if list(lines) != results:
            yield f"{file['name']} has other results"
        if [one["row"] for one in errors if one["file"] == file["input"]] != failed:
            yield f"{file['name']} has other errors"
        counts = (len(results) + len(failed), len(results), len(failed))
        if (file["rows"], file["predicted"], file["failed"]) != counts:
            yield f"{file['name']} has other counts"
    sums = {one: sum(file[one] for file in manifest["files"]) for one in _COUNTS}
    if {one: manifest[one] for one in _COUNTS} != sums or sums["rows"] != sum(data.rows.values()):
        yield "the manifest's sums are wrong"


def soak(kills: int, seed: int) -> Tally:
    """Disturb batch inferences, one after another, until so many were killed; the tally."""
    chance, tally = random.Random(seed), Tally()
    keys = {"MODELYARD_OBS_ACCESS_KEY_ID": "key", "MODELYARD_OBS_SECRET_ACCESS_KEY": _SECRET}
    with Server().running() as server, soaked_stack(tally, keys) as stack:
        place = stack.home.with_name("data")
        soaked = Soak(stack, place, chance, Box(server), set(_WEIGHTS), 70_000, 1e-4, tally)
        while (done := tally.kills.total()) < kills:
            soaked.one(min(kills - done, chance.randint(2, 6)))
            print(f"{tally.runs} {dict(tally.kills)} {tally.broken}", flush=True)
    return tally


if __name__ == "__main__":
    main(__doc__, soak, "kills", 100)
