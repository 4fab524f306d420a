"""Requests to a served model, beside KServe's Python server, MLServer and ``mlflow models serve``.

Every server has the same estimators, and gets the same rows from the same client, one server after
another, so that what else the machine does falls on all. Processor time is the server's alone, of
all its processes. Ours answers with probabilities as well in V2 and gRPC, the others do not.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from modelyard_runtime.server import grpc_messages

from benchmarks import serving_servers, usage
from benchmarks.machine import Calm
from benchmarks.results import Comparison
from benchmarks.serving_load import Load, LoadResult
from benchmarks.serving_servers import COMMAND, OURS, Protocol, RunningServer, ServerKind

REPETITIONS = 5
_CONNECTIONS = (1, 16)
_SECONDS, _QUICK_SECONDS = 2.0, 0.5
_LONGEST_SECONDS = 60.0
_GOAL_US = 150.0
_FIRST = "linear"  # whose start counts
_LABELS = {"linear": "linear model", "forest": "forest of 100", "network": "small network"}


@dataclass(frozen=True)
class _Case:
    """One thing that is asked of every server that can answer it."""

    model: str
    protocol: Protocol
    connections: int

    def __str__(self) -> str:
        return f"{_LABELS[self.model]}, {self.protocol}, {self.connections} at once"


@dataclass(frozen=True)
class _Measured:
    """What a server did with a case: what its client saw, and what it used of a processor."""

    load: LoadResult
    server_us: float


_BOUNDED = _Case(_FIRST, Protocol.V2, 16)


def _linear() -> tuple[Any, Any]:
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression

    flowers, species = load_iris(return_X_y=True)
    return LogisticRegression(max_iter=1000).fit(flowers, species), flowers[0]


def _forest() -> tuple[Any, Any]:
    from sklearn.datasets import load_breast_cancer
    from sklearn.ensemble import RandomForestClassifier

    cells, kinds = load_breast_cancer(return_X_y=True)
    return RandomForestClassifier(100, random_state=0).fit(cells, kinds), cells[0]


def _network() -> tuple[Any, Any]:
    from sklearn.datasets import load_breast_cancer
    from sklearn.neural_network import MLPClassifier

    cells, kinds = load_breast_cancer(return_X_y=True)
    network = MLPClassifier((64, 32), max_iter=300, random_state=0)
    return network.fit(cells, kinds), cells[0]


# What makes an estimator, and a row for it.
_MODELS: Mapping[str, Callable[[], tuple[Any, Any]]] = {
    "linear": _linear, "forest": _forest, "network": _network,
}  # fmt: skip


@dataclass(frozen=True)
class _Model:
    """A model that all servers serve, and the row that they are asked for."""

    name: str
    folder: Path
    row: list[float]


def _make(folder: Path, name: str) -> _Model:
    import joblib

    estimator, row = _MODELS[name]()
    (folder / name).mkdir()
    joblib.dump(estimator, folder / name / "model.joblib")
    return _Model(name, folder / name, row.tolist())


def _request(kind: ServerKind, protocol: Protocol, model: _Model) -> tuple[str, bytes]:
    """Path and body of a request for one row."""
    if protocol is Protocol.V1:
        body = json.dumps({kind.v1_key: [model.row]})
        return kind.v1_path.format(model=model.name), body.encode()
    tensor: dict[str, Any] = {"name": "input", "datatype": "FP64", "shape": [1, len(model.row)]}
    if protocol is Protocol.V2:
        body = json.dumps({"inputs": [{**tensor, "data": model.row}]})
        return f"/v2/models/{model.name}/infer", body.encode()
    contents = {"fp64_contents": model.row}
    message = grpc_messages.message("ModelInferRequest")(
        model_name=model.name, inputs=[{**tensor, "contents": contents}]
    )
    return f"/{grpc_messages.SERVICE}/ModelInfer", message.SerializeToString()


def _ask(server: RunningServer, case: _Case, model: _Model, seconds: float) -> _Measured:
    path, body = _request(server.kind, case.protocol, model)
    is_grpc = case.protocol is Protocol.GRPC
    port = server.grpc_port if is_grpc else server.port
    load = Load(port, path, body.hex(), is_grpc, case.connections, seconds, 0.0)
    before = usage.seconds(server.processes)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.serving_load", json.dumps(asdict(load))],
        capture_output=True, text=True, timeout=_LONGEST_SECONDS,
    )  # fmt: skip
    used = usage.seconds(server.processes) - before
    if done.returncode:
        raise RuntimeError(f"{server.kind.name}, {case}: {done.stderr[-1000:]}")
    result = LoadResult(**json.loads(done.stdout))
    return _Measured(result, 1e6 * used / result.requests)


def _interpreters() -> dict[ServerKind, Path]:
    found = {}
    for kind in (OURS, *serving_servers.PEERS):
        try:
            found[kind] = kind.interpreter()
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            print(f"{kind.name} is left out: it could not be installed: {error}", file=sys.stderr)
    return found


class _Tally:
    """What was measured, by the servers' names.

    Attributes:
        cold: Seconds from the start to the first answer.
        memory: MiB after it.
        cases: What each did with each case.
    """

    def __init__(self) -> None:
        self.cold: dict[str, list[float]] = defaultdict(list)
        self.memory: dict[str, list[float]] = defaultdict(list)
        self.cases: dict[_Case, dict[str, list[_Measured]]] = defaultdict(dict)

    def add_start(self, server: RunningServer) -> None:
        """Add a server that has just answered."""
        self.cold[server.kind.name].append(server.seconds)
        self.memory[server.kind.name].append(server.mebibytes())

    def add_case(self, case: _Case, server: RunningServer, measured: _Measured) -> None:
        """Add what a server did."""
        self.cases[case].setdefault(server.kind.name, []).append(measured)


def _measure_model(
    tally: _Tally, kinds: Mapping[ServerKind, Path], model: _Model, seconds: float
) -> None:
    """Start all servers, one after another, and ask each of them every case, in turn."""
    with contextlib.ExitStack() as held:
        servers = []
        for kind, python in kinds.items():
            servers.append(held.enter_context(_serving(kind, python, model)))
            if model.name == _FIRST:
                tally.add_start(servers[-1])
        for protocol, connections in itertools.product(Protocol, _CONNECTIONS):
            case = _Case(model.name, protocol, connections)
            for server in servers:
                if protocol in server.kind.protocols:
                    tally.add_case(case, server, _ask(server, case, model, seconds))


def _serving(
    kind: ServerKind, python: Path, model: _Model
) -> contextlib.AbstractContextManager[RunningServer]:
    first = _request(kind, kind.protocols[0], model)
    return serving_servers.running(kind, python, model.name, model.folder, first)


def measure(repetitions: int, calm: Calm) -> list[Comparison]:
    """Measure everything so many times; if only once, each case is shorter."""
    kinds = _interpreters()
    seconds = _QUICK_SECONDS if repetitions == 1 else _SECONDS
    tally = _Tally()
    with tempfile.TemporaryDirectory() as temporary:
        models = [_make(Path(temporary), name) for name in _MODELS]
        for _ in range(repetitions):
            calm.wait()
            with _serving(COMMAND, COMMAND.interpreter(), models[0]) as server:
                tally.add_start(server)
            for model in models:
                _measure_model(tally, kinds, model, seconds)
    print(_table(tally.cases), flush=True)
    busy = [case for case in tally.cases if case.connections > 1]
    return [*_starts(tally), *(line for case in busy for line in _lines(tally, case))]


def _median(values: Sequence[_Measured], of: Callable[[_Measured], float]) -> float:
    return statistics.median(map(of, values))


def _table(cases: Mapping[_Case, Mapping[str, Sequence[_Measured]]]) -> str:
    """Every server's medians, as a Markdown table."""
    lines = [
        "| asked | server | requests/s | p50 ms | p99 ms | µs of a core | the client's |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for case, servers in cases.items():
        for name, found in servers.items():
            loads = [one.load for one in found]
            figures = (
                f"{statistics.median(one.per_second for one in loads):.0f}",
                f"{statistics.median(one.p50 for one in loads):.2f}",
                f"{statistics.median(one.p99 for one in loads):.2f}",
                f"{_median(found, lambda one: one.server_us):.0f}",
                f"{statistics.median(one.client_us for one in loads):.0f}",
            )
            lines.append(f"| {case} | {name} | {' | '.join(figures)} |")
    return "\n".join(lines)


def _starts(tally: _Tally) -> list[Comparison]:
    """Cold start and memory, beside the peer that has least."""
    lines = []
    for what, unit, found in (
        ("until a served model answers", "s", tally.cold),
        ("memory of a served model", "MiB", tally.memory),
    ):
        peers = {name: values for name, values in found.items() if not name.startswith(OURS.name)}
        least = min(peers, key=lambda name: statistics.median(peers[name]), default="")
        lines += [
            Comparison(f"{what}, {name}", unit, found[name], found.get(least, ()), least)
            for name in (OURS.name, COMMAND.name)
        ]
    return lines


def _lines(tally: _Tally, case: _Case) -> list[Comparison]:
    """A case beside the peer that answers most requests."""
    found = tally.cases[case]
    ours = found[OURS.name]
    peers = {name: values for name, values in found.items() if name != OURS.name}
    best = max(peers, key=lambda name: _median(peers[name], _per_second), default="")
    peer = found.get(best, [])
    return [
        Comparison(
            f"a request, by the clock: {case}", "µs", [1e6 / _per_second(one) for one in ours],
            [1e6 / _per_second(one) for one in peer], best,
            *(("half of the peer", 0.5e6 / _median(peer, _per_second)) if peer else ()),
        ),
        Comparison(
            f"a request, p99: {case}", "ms", [one.load.p99 for one in ours],
            [one.load.p99 for one in peer], best,
            *(("the peer", _median(peer, lambda one: one.load.p99)) if peer else ()),
        ),
        Comparison(
            f"a request, of a core: {case}", "µs", [one.server_us for one in ours],
            [one.server_us for one in peer], best,
            *(("150 µs", _GOAL_US) if case == _BOUNDED else ()),
        ),
    ]  # fmt: skip


def _per_second(one: _Measured) -> float:
    return one.load.per_second
