"""Metrics: cells that processes share, the text for Prometheus, and what a server counts."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from modelyard_runtime.frames import Columns, objects
from modelyard_runtime.server.admission import Admission
from modelyard_runtime.server.application import Application
from modelyard_runtime.server.hosted_model import HostedModel
from modelyard_runtime.server.metric_cells import CellFile
from modelyard_runtime.server.metrics import (
    MetricFamily,
    MetricKind,
    Metrics,
    accepts_open_metrics,
)
from modelyard_runtime.server.observation import ObservedApplication, RequestObserver
from modelyard_runtime.server.scoring_application import ScoringApplication
from modelyard_runtime.server.scoring_script import ScoringScript
from modelyard_runtime.server.served_models import ServedModels
from modelyard_runtime.server.server_metrics import ServerMetrics
from prometheus_client import parser
from prometheus_client.openmetrics import parser as strict_parser

from tests.serving.runtime.server import served

COUNT = MetricFamily("things", MetricKind.COUNTER, "Things.", ("kind",))
NOW = MetricFamily("now", MetricKind.GAUGE, "Now.")
MOST = MetricFamily("most", MetricKind.GAUGE, "The most.", combine=max)
TIMES = MetricFamily("times_seconds", MetricKind.HISTOGRAM, "Times.", bounds=(0.1, 1.0))
FAMILIES = (COUNT, NOW, MOST, TIMES)


def _samples(text: str) -> dict[str, float]:
    return {
        f"{one.name}{sorted(one.labels.items())}" if one.labels else one.name: one.value
        for family in parser.text_string_to_metric_families(text)
        for one in family.samples
    }


def _open(folder: Path) -> tuple[Metrics, CellFile]:
    file = CellFile(folder)
    return Metrics(FAMILIES, file), file


def test_each_process_shows_the_sum_of_all(tmp_path: Path) -> None:
    (first, _), (second, _) = _open(tmp_path), _open(tmp_path)
    first.counter(COUNT, "a").add(2)
    second.counter(COUNT, "a").add(3)
    second.counter(COUNT, "b").add()
    for one, value in ((first, 4.0), (second, 6.0)):
        one.gauge(NOW).set(value)
        one.gauge(MOST).set(value)
        one.histogram(TIMES).observe(value / 10)

    assert first.expose() == second.expose()
    assert _samples(first.expose().decode()) == {
        "things_total[('kind', 'a')]": 5.0,
        "things_total[('kind', 'b')]": 1.0,
        "now": 10.0,
        "most": 6.0,
        "times_seconds_bucket[('le', '0.1')]": 0.0,
        "times_seconds_bucket[('le', '1.0')]": 2.0,
        "times_seconds_bucket[('le', '+Inf')]": 2.0,
        "times_seconds_count": 2.0,
        "times_seconds_sum": 1.0,
    }


def test_a_process_that_ended_leaves_its_counters_and_its_successor_counts_on(
    tmp_path: Path,
) -> None:
    (first, held), (second, _) = _open(tmp_path), _open(tmp_path)
    first.counter(COUNT, "a").add(2)
    first.gauge(NOW).set(7)
    second.gauge(NOW).set(1)
    del first
    held.close()
    after_its_end = _samples(second.expose().decode())
    successor, _ = _open(tmp_path)
    successor.counter(COUNT, "a").add()
    with_successor = _samples(second.expose().decode())

    assert after_its_end["things_total[('kind', 'a')]"] == 2.0
    assert after_its_end["now"] == 1.0
    assert with_successor["things_total[('kind', 'a')]"] == 3.0
    assert with_successor["now"] == 1.0
    assert len(list(tmp_path.iterdir())) == 2


def test_keys_without_space_are_counted_nowhere() -> None:
    written = Metrics(FAMILIES, CellFile(size=1024))
    for number in range(50):
        written.counter(COUNT, str(number)).add()
        written.histogram(TIMES).observe(0.5)
    found = _samples(written.expose().decode())

    assert 0 < len([name for name in found if name.startswith("things")]) < 50
    assert {value for name, value in found.items() if name.startswith("things")} == {1.0}
    assert found["times_seconds_count"] == 50.0


def test_the_text_is_prometheus_s_and_openmetrics_s() -> None:
    written = Metrics(FAMILIES)
    odd = 'a"b\\c\nd'
    written.counter(COUNT, odd).add()
    written.histogram(TIMES).observe(5.0)
    plain = written.expose().decode()
    strict = list(
        strict_parser.text_string_to_metric_families(written.expose(open_metrics=True).decode())
    )

    assert next(one.labels for family in strict for one in family.samples) == {"kind": odd}
    assert [(one.name, one.type) for one in strict] == [
        ("things", "counter"),
        ("times_seconds", "histogram"),
    ]
    assert plain.startswith("# HELP things_total Things.\n# TYPE things_total counter\n")
    assert [one.name for one in parser.text_string_to_metric_families(plain)] == [
        "things",
        "times_seconds",
    ]


@pytest.mark.parametrize(
    ("accept", "is_open"),
    [
        ("", False),
        ("*/*", False),
        ("text/plain", False),
        ("application/openmetrics-text", True),
        ("application/openmetrics-text; version=1.0.0; charset=utf-8", True),
        ("application/openmetrics-text; version=9.0.0", False),
        ("application/openmetrics-text;q=0", False),
        ("application/openmetrics-text;q=high", False),
        ("text/plain;q=0.9, application/openmetrics-text;q=0.3", False),
        (
            "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;"
            "version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
            True,
        ),
    ],
)
def test_the_format_is_the_one_that_is_accepted(accept: str, is_open: bool) -> None:
    assert accepts_open_metrics(accept) is is_open


Ask = Callable[..., Awaitable[httpx.Response]]


class _Server:
    """A server of models in this process, and what it counts."""

    def __init__(self) -> None:
        self.metrics = ServerMetrics()
        self.models: list[HostedModel] = []

    async def open(self, models: dict[str, Any], **limits: Any) -> httpx.AsyncClient:
        for name, made in models.items():
            observer = self.metrics.of_model(name, "1")
            self.models.append(served.hosted(name, made, observer, **limits))
            await self.models[-1].load()
        return self.client(Application(ServedModels(self.models), metrics=self.metrics))

    def client(self, application: Any) -> httpx.AsyncClient:
        observed = ObservedApplication(application, RequestObserver([self.metrics]))
        return httpx.AsyncClient(
            transport=httpx.ASGITransport(observed, raise_app_exceptions=False),
            base_url="http://localhost",
        )

    def counted(self, prefix: str = "") -> dict[str, float]:
        found = _samples(self.metrics.expose("")[0].decode())
        return {name: value for name, value in found.items() if name.startswith(prefix)}


def _key(name: str, **labels: str) -> str:
    return f"{name}{sorted(labels.items())}"


def _requests(found: Iterable[tuple[str, str, str, str]]) -> dict[str, float]:
    names = ("protocol", "method", "model", "code")
    keys = [
        _key("modelyard_requests_total", **dict(zip(names, one, strict=True))) for one in found
    ]
    return {key: float(keys.count(key)) for key in keys}


@pytest.mark.anyio
async def test_requests_are_counted_by_protocol_method_model_and_code(iris: Any) -> None:
    server = _Server()
    client = await server.open({"iris": iris})
    tensor = {"name": "x", "shape": [1, 4], "datatype": "FP64", "data": served.SETOSA}
    await client.post("/v2/models/iris/infer", json={"inputs": [tensor]})
    await client.post("/v2/models/iris/infer", content=b"{")
    await client.post("/v1/models/iris:predict", json={"instances": [served.SETOSA] * 3})
    await client.get("/v1/models/iris:predict")
    await client.get("/v2/models/iris")
    await client.get("/v2/health/ready")
    for unknown in ("/v2/models/other/infer", "/v2/models/another", "/etc/passwd", "/v3?x=1"):
        await client.get(unknown)
    await client.get("/metrics")

    assert server.counted("modelyard_requests_total") == _requests(
        [
            ("v2", "model_infer", "iris", "200"),
            ("v2", "model_infer", "iris", "400"),
            ("v1", "predict", "iris", "200"),
            ("v1", "predict", "iris", "405"),
            ("v2", "model_metadata", "iris", "200"),
            ("v2", "server_ready", "", "200"),
            *[("http", "other", "", "404")] * 4,
            ("http", "metrics", "", "200"),
        ]
    )
    assert server.counted("modelyard_requests_in_flight") == {"modelyard_requests_in_flight": 0.0}


@pytest.mark.anyio
async def test_a_model_s_batches_queue_and_times_are_counted(iris: Any) -> None:
    server = _Server()
    client = await server.open({"iris": iris})
    rows = {"instances": [served.SETOSA] * 3}
    await asyncio.gather(*(client.post("/v1/models/iris:predict", json=rows) for _ in range(2)))
    found = server.counted()
    labels = {"model": "iris", "version": "1"}

    assert found[_key("modelyard_batch_rows_sum", **labels)] == 6.0
    assert found[_key("modelyard_queue_duration_seconds_count", **labels)] == 2.0
    assert found[_key("modelyard_queue_requests", **labels)] == 0.0
    assert found[_key("modelyard_model_ready", **labels)] == 1.0
    assert found[_key("modelyard_model_load_seconds", **labels)] > 0.0
    batches = found[_key("modelyard_batch_rows_count", **labels)]
    assert found[_key("modelyard_predict_duration_seconds_count", **labels)] == batches
    assert found["process_cpu_seconds_total"] > 0.0
    assert found["process_resident_memory_bytes"] > 2**20


@pytest.mark.anyio
async def test_classes_and_confidences_are_counted(iris: Any) -> None:
    server = _Server()
    client = await server.open({"iris": iris, "odd": served.odd})
    rows = [served.SETOSA, served.VIRGINICA, served.VIRGINICA]
    await client.post("/v1/models/iris:predict", json={"instances": rows})
    await client.post("/v1/models/odd:predict", json={"instances": [1, 2, 3]})
    found = server.counted("modelyard_predictions_total")
    labels = {"model": "iris", "version": "1"}

    assert found == {
        _key("modelyard_predictions_total", **labels, **{"class": "0"}): 1.0,
        _key("modelyard_predictions_total", **labels, **{"class": "2"}): 2.0,
    }
    confidences = server.counted("modelyard_prediction_confidence_")
    assert confidences[_key("modelyard_prediction_confidence_count", **labels)] == 3.0
    assert confidences[_key("modelyard_prediction_confidence_bucket", **labels, le="0.5")] == 0.0
    of_class = server.counted("modelyard_class_confidence_sum")
    assert 2 < sum(of_class.values()) < 3
    assert sum(of_class.values()) == pytest.approx(
        confidences[_key("modelyard_prediction_confidence_sum", **labels)]
    )


def test_classes_beyond_the_first_hundred_are_counted_together() -> None:
    metrics = ServerMetrics()
    model = metrics.of_model("m", "1")
    names = objects([f"class {number}" for number in range(150)])
    shares = np.full((150, 2), 0.5)
    shares[0] = np.nan
    for _ in range(2):
        model.on_predicted(150, 0.1, {"prediction": names, "probabilities": shares})
    model.on_predicted(2, 0.1, {"prediction": np.array([True, False])})
    found = _samples(metrics.expose("")[0].decode())
    labels = {"model": "m", "version": "1"}

    classes = [name for name in found if name.startswith("modelyard_predictions_total")]
    assert len(classes) == 101
    other = {**labels, "class": "__other__"}
    assert found[_key("modelyard_predictions_total", **other)] == 102.0
    assert found[_key("modelyard_class_confidence_sum", **other)] == 50.0
    assert found[_key("modelyard_prediction_confidence_count", **labels)] == 298.0


@pytest.mark.anyio
async def test_what_is_refused_or_takes_too_long_is_counted() -> None:
    server = _Server()
    begun, ended = threading.Event(), threading.Event()

    def slow(inputs: Columns) -> Columns:
        begun.set()
        ended.wait(20)
        return inputs

    client = await server.open({"slow": slow}, waiting=1, seconds=0.3)
    tensor = {"name": "x", "shape": [1], "datatype": "FP64", "data": [1.0]}

    async def ask() -> int:
        answer = await client.post("/v2/models/slow/infer", json={"inputs": [tensor]})
        return answer.status_code

    first = asyncio.ensure_future(ask())
    while not begun.is_set():  # then the next one waits
        await asyncio.sleep(0.001)
    statuses = [*await asyncio.gather(ask(), ask()), await first]
    ended.set()
    labels = {"model": "slow", "version": "1"}

    assert sorted(statuses) == [429, 504, 504]
    assert server.counted("modelyard_requests_refused") == {
        _key("modelyard_requests_refused_total", **labels): 1.0
    }
    assert server.counted("modelyard_requests_overdue") == {
        _key("modelyard_requests_overdue_total", **labels): 2.0
    }


@pytest.mark.anyio
@pytest.mark.parametrize("token", ["", "secret"])
async def test_metrics_are_for_who_may_ask_the_model(token: str, iris: Any) -> None:
    server = _Server()
    await server.open({"iris": iris})
    guarded = Admission(Application(ServedModels(server.models), metrics=server.metrics), token)
    client = server.client(guarded)
    plain = await client.get("/metrics")
    strange = await client.get("/metrics", headers={"host": "evil.example"})
    granted = await client.get(
        "/metrics",
        headers={"authorization": f"Bearer {token}", "accept": "application/openmetrics-text"},
    )

    assert plain.status_code == (401 if token else 200)
    assert strange.status_code == (401 if token else 403)
    assert granted.headers["content-type"].startswith("application/openmetrics-text")
    assert granted.text.endswith("# EOF\n")
    refused = server.counted("modelyard_requests_total")
    code = "401" if token else "403"
    label = {"protocol": "http", "method": "other", "model": "", "code": code}
    assert refused[_key("modelyard_requests_total", **label)] == (2.0 if token else 1.0)


@pytest.mark.anyio
async def test_a_scoring_script_is_counted(tmp_path: Path) -> None:
    (tmp_path / "score.py").write_text("def init(): pass\ndef run(data): return 1 / len(data)\n")
    server = _Server()
    script = ScoringScript(
        tmp_path / "score.py", observer=server.metrics.of_model("score.py", "1")
    )
    await script.load()
    client = server.client(ScoringApplication(script, metrics=server.metrics))
    for body in (b"1", b""):
        await client.post("/score", content=body)
    await client.get("/metrics")
    script.close()
    found = server.counted()

    assert server.counted("modelyard_requests_total") == _requests(
        [
            ("azureml", "score", "score.py", "200"),
            ("azureml", "score", "score.py", "500"),
            ("azureml", "metrics", "", "200"),
        ]
    )
    labels = {"model": "score.py", "version": "1"}
    assert found[_key("modelyard_predict_duration_seconds_count", **labels)] == 1.0
    assert found[_key("modelyard_queue_duration_seconds_count", **labels)] == 2.0
