"""Azure ML's scoring scripts: what a script is given, and what its client is answered."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from textwrap import dedent
from types import ModuleType
from typing import Any

import httpx
import pytest
from modelyard_runtime.server import azureml_modules
from modelyard_runtime.server.scoring_application import ScoringApplication, ScoringSettings
from modelyard_runtime.server.scoring_script import ScoringScript, ScriptError
from modelyard_runtime.server.swagger import ServiceInfo

from tests.serving.runtime.server.test_vectors import VECTORS, check, content

pytestmark = pytest.mark.anyio

SCRIPT = """
import json, time
from azureml.contrib.services.aml_response import AMLResponse

def init():
    global ready
    ready = True

def run(data):
    case = json.loads(data).get("case")
    if case == "none":
        return None
    if case == "aml418":
        return AMLResponse("tea", 418, {"X-Kind": "a, b"})
    if case == "aml503":
        return AMLResponse(b"no", 503)
    if case == "sleep":
        time.sleep(1)
    if case == "loop":
        while True:
            pass
    if case == "boom":
        raise RuntimeError("boom")
    if case == "object":
        return object()
    return {"given": data}
"""
Client = httpx.AsyncClient
Serve = Callable[..., Awaitable[Client]]


@pytest.fixture
async def serve(tmp_path: Path) -> AsyncIterator[Serve]:
    clients: list[Client] = []

    async def make(
        code: str = SCRIPT, settings: ScoringSettings | None = None, *, seconds: float | None = 30
    ) -> Client:
        file = tmp_path / "score.py"
        file.write_text(dedent(code))
        script = ScoringScript(file, seconds)
        await script.load()
        settings = settings or ScoringSettings(seconds)
        application = ScoringApplication(script, settings)
        transport = httpx.ASGITransport(application, raise_app_exceptions=False)
        clients.append(Client(transport=transport, base_url="http://server"))
        return clients[-1]

    yield make
    for client in clients:
        await client.aclose()


@pytest.fixture
def schemas(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in of the user's package ``inference-schema``."""
    package, module = ModuleType("inference_schema"), ModuleType("inference_schema.schema_util")

    def decorated(function: Any) -> Any:
        function.decorated = True
        return function

    vars(module).update(
        decorated=decorated,
        is_schema_decorated=lambda run: hasattr(run, "decorated"),
        get_supported_versions=lambda run: ["2", "3.0"],
        get_input_schema=lambda run: {"type": "object", "example": {"a": 1}},
        get_output_schema=lambda run: {"type": "integer"},
    )
    vars(package).update(schema_util=module)
    monkeypatch.setitem(sys.modules, "inference_schema", package)
    monkeypatch.setitem(sys.modules, "inference_schema.schema_util", module)


DECORATED = """
from inference_schema.schema_util import decorated

def init():
    pass

@decorated
def run(a, b=2):
    return [a, b]
"""


@pytest.mark.parametrize(
    "case", [one for one in VECTORS if one["group"] == "score"], ids=lambda case: case["id"]
)
@pytest.mark.usefixtures("schemas")
async def test_the_answer_is_azure_s(case: dict[str, Any], serve: Serve) -> None:
    with_schema = "schema" in case["id"]
    client = await serve(DECORATED if with_schema else SCRIPT, seconds=0.3)
    body, headers = content(case["request"])
    if with_schema:
        headers["content-type"] = "application/json"
    request = case["request"]
    response = await client.request(
        request["method"], request["path"], content=body, headers=headers
    )

    assert response.status_code in case["expect"]["status"], response.text
    for fact in case["expect"]["facts"]:
        if "text" in fact:
            assert response.text == fact["text"]
        elif "json_eq" in fact:
            assert response.json() == fact["json_eq"]
        elif "header" in fact:
            assert response.headers[fact["header"]] == fact["eq"]
        else:
            check(fact, response)


async def test_run_gets_the_body_as_it_was_sent_or_the_query_as_json(serve: Serve) -> None:
    client = await serve()
    body = ' {"a":\t1}'
    posted = await client.post("/score", content=body)
    got = await client.get('/score?a=1&b=[1,2]&b=x&c=&d=null&e={"f":true}')

    assert posted.json() == {"given": body}
    assert json.loads(got.json()["given"]) == {
        "a": 1, "b": [[1, 2], "x"], "c": "", "d": None, "e": {"f": True},
    }  # fmt: skip
    assert posted.headers["x-ms-run-function-failed"] == "False"
    assert float(posted.headers["x-ms-run-fn-exec-ms"]) >= 0


async def test_what_the_reference_s_script_answers(serve: Serve) -> None:
    client = await serve("""
        def init():
            pass
        def run(input_data):
            return {"message":"Hello, World!"}
    """)
    response = await client.get("/score")

    assert response.text == '{"message": "Hello, World!"}'
    assert response.headers["content-type"] == "application/json"


async def test_a_response_s_status_and_headers_pass_through(serve: Serve) -> None:
    client = await serve()
    tea = await client.post("/score", json={"case": "aml418"})
    failed = await client.post("/score", json={"case": "aml503"})

    assert (tea.status_code, tea.text) == (418, "tea")
    assert tea.headers.get_list("x-kind") == ["a", "b"]
    assert tea.headers["x-ms-run-function-failed"] == "False"
    assert (failed.status_code, failed.content) == (503, b"no")
    assert failed.headers.get_list("x-ms-run-function-failed") == ["True"]


@pytest.mark.parametrize(
    ("response", "told"),
    [
        ("'x', 200, {'X-Kind': 'a\\r\\nSet-Cookie: b'}", "the header 'X-Kind'"),
        ("'x', 200, {'X Kind': 'a'}", "the header 'X Kind'"),
        ("'x', 200, {'X-Kind': '\uac00'}", "beyond Latin-1"),
        ("'x', 99", "the status 99: give 200 to 599"), ("'x', '200'", "the status '200'"),
        ("'x', 200, {'Transfer-Encoding': 'chunked', 'Content-Length': '7'}", ""),
    ],
)  # fmt: skip
async def test_a_response_that_http_does_not_have_is_the_script_s_fault(
    response: str, told: str, serve: Serve
) -> None:
    client = await serve(
        "from azureml.contrib.services.aml_response import AMLResponse\n"
        f"def init(): pass\ndef run(data): return AMLResponse({response})"
    )
    answer = await client.post("/score", content=b"1")

    assert answer.status_code == (500 if told else 200)
    assert told in (answer.json()["message"] if told else "")
    assert answer.headers.get_list("content-length") == [str(len(answer.content))]
    assert "transfer-encoding" not in answer.headers


async def test_an_error_says_where_in_the_script_it_happened(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "steps.py").write_text("import json\ndef read(data):\n    return json.loads(data)")
    client = await serve("import steps\ndef init(): pass\ndef run(data):\n    steps.read(data)")
    boom = await client.post("/score", content=b"{")

    assert boom.status_code == 500
    assert boom.headers["x-ms-run-function-failed"] == "True"
    assert boom.json()["message"].startswith("steps.py:3, in read: json.decoder.JSONDecodeError")


async def test_what_has_no_json_is_the_script_s_fault(serve: Serve) -> None:
    client = await serve()
    response = await client.post("/score", json={"case": "object"})

    assert response.status_code == 500
    assert response.headers["x-ms-run-function-failed"] == "True"
    assert "run() returned a object that has no JSON" in response.json()["message"]


@pytest.mark.parametrize("case", ["sleep", "loop"])
async def test_a_run_past_its_deadline_is_answered_and_the_next_one_too(
    serve: Serve, case: str
) -> None:
    client = await serve(seconds=0.2)
    late = await client.post("/score", json={"case": case})
    after = await client.post("/score", json={})

    assert late.status_code == 500
    assert late.json() == {"message": "Scoring timeout after 200 ms"}
    assert late.headers["x-ms-run-function-failed"] == "True"
    assert after.status_code == 200


async def test_init_and_run_share_a_thread_and_run_is_called_once_at_a_time(
    serve: Serve,
) -> None:
    client = await serve("""
        import threading, time
        local, busy = threading.local(), threading.Lock()
        def init():
            local.model = "model"
        def run(data):
            assert busy.acquire(blocking=False)
            time.sleep(0.01)
            busy.release()
            return local.model
    """)
    answers = await asyncio.gather(*(client.get("/score") for _ in range(5)))

    assert [one.json() for one in answers] == ["model"] * 5


async def test_run_may_take_the_request_s_headers(serve: Serve) -> None:
    client = await serve(
        "def init(): pass\ndef run(data, request_headers): return request_headers['X-User-Name']"
    )
    response = await client.post("/score", content=b"1", headers={"x-user-name": "ada"})

    assert response.json() == "ada"


RAW = """
from {package}.aml_request import AMLRequest, rawhttp
from {package}.aml_response import AMLResponse

def init():
    pass

@rawhttp
def run(request):
    if request.method == "POST":
        body = request.get_data(False)
        return AMLResponse(body[::-1], 201, {{"Content-Type": "image/png"}})
    return [request.method, request.args.get("a"), request.args.getlist("a"), request.path,
            request.headers.get("x-kind"), request.get_json(silent=True)]
"""


@pytest.mark.parametrize("package", ["azureml.contrib.services",
                                     "azureml_inference_server_http.api"])  # fmt: skip
@pytest.mark.parametrize("has_flask", [True, False])
async def test_raw_requests(
    serve: Serve, package: str, has_flask: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not has_flask:
        monkeypatch.setitem(sys.modules, "flask", None)
    client = await serve(RAW.format(package=package))
    posted = await client.post("/score", content=b"\x00\xff")
    got = await client.get("/score?a=1&a=2", headers={"X-Kind": "k"})
    others = [await client.request(method, "/score") for method in ("OPTIONS", "PUT")]

    assert (posted.status_code, posted.content) == (201, b"\xff\x00")
    assert posted.headers.get_list("content-type") == ["image/png"]
    assert got.json() == ["GET", "1", ["1", "2"], "/score", "k", None]
    assert others[0].json()[0] == "OPTIONS"
    assert others[1].status_code == 405


async def test_flask_s_responses_pass_through(serve: Serve) -> None:
    client = await serve(
        "import flask\ndef init(): pass\n"
        "def run(data): return flask.Response('x', 202, {'X-A': '1'})"
    )
    response = await client.get("/score")

    assert (response.status_code, response.text, response.headers["x-a"]) == (202, "x", "1")


async def test_installed_packages_are_not_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    real = ModuleType("azureml.contrib.services")
    for name in ("azureml", "azureml.contrib"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, real.__name__, real)
    azureml_modules.install()

    assert sys.modules[real.__name__] is real
    assert "azureml.contrib.services.aml_request" not in sys.modules


@pytest.mark.usefixtures("schemas")
@pytest.mark.parametrize(
    ("body", "kind", "status", "said"),
    [
        (b'{"a": 1}', "application/json", 200, "[1, 2]"),
        (b'{"a": 1}', "application/json; charset=utf-8", 200, "[1, 2]"),
        (b'{"a": 1}', "text/plain", 415, "application/json"),
        (b'{"b": 1}', "application/json", 400, "parameter 'a'"),
        (b"[1]", "application/json", 400, "not a mapping"),
        (b"", "application/json", 400, "not JSON"),
        (b"[" * 100_000, "application/json", 400, "not JSON"),
    ],
)
async def test_a_schema_s_parameters(
    serve: Serve, body: bytes, kind: str, status: int, said: str
) -> None:
    client = await serve(DECORATED)
    response = await client.post("/score", content=body, headers={"content-type": kind})

    assert response.status_code == status
    assert said in response.text
    assert (await client.get("/score?a=[1]&b=x")).json() == [[1], "x"]


@pytest.mark.parametrize(
    ("method", "path", "headers", "body", "status"),
    [
        ("POST", "/score", {}, b"\xff", 400),
        ("PUT", "/score", {}, b"", 405),
        ("HEAD", "/score", {}, b"", 405),
        ("POST", "/", {}, b"", 405),
        ("GET", "/nothing", {}, b"", 404),
        ("GET", "/swagger.json?version=4", {}, b"", 404),
        ("GET", "/score", {"x-request-id": "x" * 101}, b"", 431),
        ("GET", "/score", {"x-ms-request-id": "x" * 101}, b"", 431),
        ("GET", "/score", {"x-ms-client-request-id": "x" * 101}, b"", 431),
    ],
)
async def test_a_client_s_mistake_is_not_the_script_s(
    serve: Serve, method: str, path: str, headers: dict[str, str], body: bytes, status: int
) -> None:
    client = await serve()
    response = await client.request(method, path, headers=headers, content=body)

    assert response.status_code == status
    if method != "HEAD":
        assert list(response.json()) == ["message"]
    assert response.headers["x-ms-run-function-failed"] == "False"


@pytest.mark.parametrize(
    ("given", "answered"),
    [
        ({"x-request-id": "r"}, ("r", "r", None)),
        ({"x-ms-request-id": "m"}, (..., "m", "m")),
        ({"x-ms-client-request-id": "c", "x-request-id": "r"}, ("r", "c", "c")),
        ({"x-ms-client-request-id": "c", "x-ms-request-id": "m"}, (..., "m", "c")),
        ({}, (..., ..., None)),
    ],
)
async def test_ids_are_carried_back(
    serve: Serve, given: dict[str, str], answered: tuple[Any, ...]
) -> None:
    client = await serve()
    names = ("x-request-id", "x-ms-request-id", "x-ms-client-request-id")
    for path in ("/score", "/", "/nothing"):
        response = await client.get(path, headers=given)
        found = [response.headers.get(name) for name in names]
        for one, wanted in zip(found, answered, strict=True):
            assert one if wanted is ... else one == wanted


async def test_pages_of_other_origins_may_ask_by_setting(serve: Serve) -> None:
    asked = {"origin": "https://a.example", "access-control-request-method": "POST",
             "access-control-request-headers": "content-type"}  # fmt: skip
    settings = ScoringSettings.from_environment(
        {"AML_CORS_ORIGINS": "https://a.example, https://b.example"}
    )
    with_setting, without = await serve(settings=settings), await serve()
    preflight = await with_setting.options("/score", headers=asked)
    foreign = await with_setting.get("/score", headers={"origin": "https://c.example"})
    unset = await without.options("/score", headers=asked)

    assert preflight.headers["access-control-allow-origin"] == "https://a.example"
    assert preflight.headers["access-control-allow-methods"] == "GET, POST"
    assert preflight.headers["access-control-allow-headers"] == "content-type"
    assert "access-control-allow-origin" not in foreign.headers
    assert unset.status_code == 200
    assert not [name for name in unset.headers if name.startswith("access-control")]


@pytest.mark.usefixtures("schemas")
async def test_the_description(serve: Serve, tmp_path: Path) -> None:
    settings = ScoringSettings(service=ServiceInfo("iris", "2", "/models"))
    client = await serve(DECORATED, settings)
    two, three = [(await client.get(f"/swagger.json?version={one}")).json() for one in (2, 3)]
    unsupported = await client.get("/swagger.json?version=3.1")
    (tmp_path / "swagger.json").write_text('{"swagger": "2.0", "mine": true}')
    written = await client.get("/models/swagger.json")

    assert (two["swagger"], three["openapi"]) == ("2.0", "3.0.3")
    assert list(two["paths"]) == ["/models/", "/models/score", "/models/swagger.json"]
    assert two["definitions"]["ServiceInput"]["example"] == {"a": 1}
    assert three["components"]["schemas"]["ServiceOutput"] == {"type": "integer"}
    assert unsupported.status_code == 404
    assert written.json()["mine"] is True


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("def run(data): pass", "score.py has no function init()."),
        ("def init(): pass", "score.py has no function run()."),
        ("def init(): pass\ndef run(*data): pass", "name them"),
        ("def init(): pass\ndef run(request_headers): pass", "write run(data)"),
        ("x = 1\ndef init(:", "score.py:2: SyntaxError"),
        ("def init():\n    open('/nowhere')\ndef run(data): pass", "score.py:2, in init: FileNot"),
        ("def init():\n    raise SystemExit(4)\ndef run(data): pass", "score.py:2, in init: Sys"),
        ("import missing_module", "score.py:1, in <module>: ModuleNotFoundError"),
    ],
)
async def test_a_script_that_does_not_load(serve: Serve, code: str, said: str) -> None:
    with pytest.raises(ScriptError) as refused:
        await serve(code)

    assert said in str(refused.value)


async def test_it_is_not_healthy_before_init_has_returned(tmp_path: Path) -> None:
    script = ScoringScript(tmp_path / "score.py")
    transport = httpx.ASGITransport(ScoringApplication(script))
    async with Client(transport=transport, base_url="http://server") as client:
        assert [(await client.get(path)).status_code for path in ("/", "/score")] == [503, 503]


def test_settings_of_azure_s_variables() -> None:
    assert ScoringSettings.from_environment({}) == ScoringSettings(3600.0)
    assert ScoringSettings.from_environment({"SCORING_TIMEOUT_MS": "0"}).seconds is None
    with pytest.raises(ValueError, match="SCORING_TIMEOUT_MS is '1s'"):
        ScoringSettings.from_environment({"SCORING_TIMEOUT_MS": "1s"})
