"""The access log: what a line has, and that no request writes more than its own."""

from __future__ import annotations

import asyncio
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from modelyard_runtime.server.access_log import AccessLog, AccessLogFormat
from modelyard_runtime.server.admission import Admission
from modelyard_runtime.server.application import Application
from modelyard_runtime.server.observation import (
    ObservedApplication,
    RequestObserver,
    RequestRecord,
)
from modelyard_runtime.server.scoring_application import ScoringApplication
from modelyard_runtime.server.scoring_script import ScoringScript
from modelyard_runtime.server.served_models import ServedModels

from tests.serving.runtime.server import served

pytestmark = pytest.mark.anyio

_NOW = 1_700_000_000.25
_AT = "2023-11-14T22:13:20.250Z"


class _Logged:
    """A server with an access log."""

    def __init__(self, application: Any, format: AccessLogFormat) -> None:
        self._stream = io.StringIO()
        self.log = AccessLog(self._stream, format, lambda: _NOW)
        observed = ObservedApplication(application, RequestObserver([self.log]))
        self.client = httpx.AsyncClient(
            transport=httpx.ASGITransport(observed, client=("10.1.2.3", 999)),
            base_url="http://localhost",
        )

    @property
    def lines(self) -> list[str]:
        self.log.flush()
        return self._stream.getvalue().splitlines()

    @property
    def fields(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines]


Open = Callable[..., _Logged]


@pytest.fixture
async def opened(iris: Any) -> Open:
    model = served.hosted("iris", iris)
    await model.load()

    def make(format: AccessLogFormat = AccessLogFormat.JSON, token: str = "") -> _Logged:
        application: Any = Application(ServedModels([model]))
        return _Logged(Admission(application, token) if token else application, format)

    return make


async def test_a_line_in_json(opened: Open) -> None:
    server = opened()
    answer = await server.client.post(
        "/v1/models/iris:predict?key=secret", json={"instances": [served.SETOSA]},
        headers={"x-request-id": "r-1", "x-ms-client-request-id": "c-1"},
    )  # fmt: skip
    (line,) = server.fields
    duration = line.pop("duration_ms")

    assert line == {
        "time": _AT, "level": "INFO", "request_id": "r-1", "client_request_id": "c-1",
        "client": "10.1.2.3", "protocol": "v1", "method": "POST",
        "path": "/v1/models/iris:predict", "model": "iris", "status": 200,
        "response_bytes": len(answer.content),
    }  # fmt: skip
    assert 0 < duration < 60_000
    assert answer.headers["x-request-id"] == "r-1"


async def test_a_line_for_people(opened: Open) -> None:
    server = opened(AccessLogFormat.TEXT)
    answer = await server.client.get("/v2/health/live")
    await server.client.get("/nothing", headers={"x-ms-client-request-id": "c 1"})
    first, second = server.lines
    given = answer.headers["x-request-id"]

    assert re.fullmatch(
        rf"{re.escape(_AT)} INFO GET /v2/health/live 200 [\d.]+ms {len(answer.content)}B "
        rf"{re.escape(given)}",
        first,
    )
    assert " WARNING GET /nothing 404 " in second
    assert second.endswith(" client_request_id='c 1'")
    assert given not in second


async def test_no_secret_is_logged(opened: Open) -> None:
    for format in (AccessLogFormat.JSON, AccessLogFormat.TEXT):
        server = opened(format, "a-secret-token")
        for token in ("a-secret-token", "a-secret-guess"):
            await server.client.post(
                "/v1/models/iris:predict?token=a-secret-query", content=b"a-secret-body",
                headers={"authorization": f"Bearer {token}", "cookie": "a-secret-cookie"},
            )  # fmt: skip

        assert len(server.lines) == 2
        assert "a-secret" not in "\n".join(server.lines)


@pytest.mark.parametrize("format", [AccessLogFormat.JSON, AccessLogFormat.TEXT])
async def test_what_a_client_chooses_writes_no_line(format: AccessLogFormat) -> None:
    stream = io.StringIO()
    log = AccessLog(stream, format, lambda: _NOW)
    evil = "a\r\n2023 INFO GET / 200\x1b[2J\x85\u00e9\"'\\"
    scope = {
        "method": evil, "path": evil, "raw_path": evil.encode("latin-1"), "client": None,
        "headers": [(b"x-request-id", evil.encode("latin-1")),
                    (b"x-ms-client-request-id", b"x" * 10_000)],
    }  # fmt: skip
    record = RequestRecord("http", "other", scope)
    log.on_begin(record)
    log.on_end(record)
    log.flush()
    (line,) = stream.getvalue().splitlines()

    assert line.isascii()
    assert line.isprintable()
    assert len(line) < 2000
    assert record.answer_headers == []


async def test_a_scoring_script_s_line_has_the_ids_of_its_answer(tmp_path: Path) -> None:
    (tmp_path / "score.py").write_text("def init(): pass\ndef run(data): return 1 / len(data)\n")
    script = ScoringScript(tmp_path / "score.py")
    await script.load()
    server = _Logged(ScoringApplication(script), AccessLogFormat.JSON)
    answers = [await server.client.post("/score", content=body) for body in (b"1", b"")]
    answers.append(await server.client.get("/", headers={"x-ms-request-id": "legacy"}))
    script.close()

    assert [one["status"] for one in server.fields] == [200, 500, 200]
    assert [one["level"] for one in server.fields] == ["INFO", "ERROR", "INFO"]
    assert [one["model"] for one in server.fields] == ["score.py", "score.py", ""]
    assert [one["request_id"] for one in server.fields] == [
        one.headers["x-request-id"] for one in answers
    ]
    assert server.fields[2]["client_request_id"] == "legacy"


async def test_lines_are_written_together_and_soon() -> None:
    written: list[str] = []

    class Stream(io.StringIO):
        def write(self, text: str) -> int:
            written.append(text)
            return len(text)

    log = AccessLog(Stream(), AccessLogFormat.TEXT)

    def ask() -> None:
        record = RequestRecord("http", "other", {"method": "GET", "path": "/"})
        log.on_begin(record)
        log.on_end(record)

    for _ in range(100):
        ask()
    assert written == []
    async with asyncio.timeout(20):
        while not written:
            await asyncio.sleep(0.01)
    assert 1 < len(written) < 10
    assert "".join(written).count("\n") == 100
    assert all(len(text) <= 4096 and text.endswith("\n") for text in written)
    del written[:]
    for _ in range(500):
        ask()
    assert "".join(written).count("\n") == 500


async def test_a_log_that_cannot_be_written_fails_no_request(opened: Open) -> None:
    server = opened()
    server._stream.close()

    assert (await server.client.get("/v2")).status_code == 200
    server.log.flush()
