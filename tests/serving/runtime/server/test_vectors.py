"""The protocols' vectors: what is asked, and what the answer has to be.

OpenAI's protocol is not spoken yet; those of score.py are in ``test_scoring_script.py``, and those
of a server's life in ``test_serving.py``.
"""

from __future__ import annotations

import base64
import itertools
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.serving.runtime.server import served
from tests.serving.runtime.server.conftest import Open

pytestmark = pytest.mark.anyio

PROTOCOL = json.loads(Path(__file__).with_name("open_inference_protocol.json").read_text())
VECTORS = PROTOCOL["rest"]
ELSEWHERE = {"score", "openai", "lifecycle"}
OF_A_PROCESS = {"slow-predict", "concurrent", "keepalive"}
CASES = [
    case
    for case in VECTORS
    if case["group"] not in ELSEWHERE and case["request"].get("fixture") not in OF_A_PROCESS
]
TYPES = {"str": str, "list": list, "dict": dict}


def content(request: dict[str, Any]) -> tuple[bytes, dict[str, str]]:
    """The body and headers of a request."""
    headers = dict(request.get("headers", {}))
    if "json" in request:
        return json.dumps(request["json"]).encode(), headers
    if "raw" in request:
        return request["raw"].encode(), headers
    if "raw_b64" in request:
        return base64.b64decode(request["raw_b64"]), headers
    if "binary" not in request:
        return b"", headers
    binary = request["binary"]
    head, tail = json.dumps(binary["json"]).encode(), base64.b64decode(binary["tail_b64"])
    length = len(head) if binary["header_len"] == "auto" else binary["header_len"]
    return head + tail, {
        **headers,
        "Inference-Header-Content-Length": str(length),
        "Content-Type": binary["content_type"],
    }


def json_of(response: httpx.Response) -> Any:
    length = response.headers.get("inference-header-content-length")
    return json.loads(response.content[: int(length)] if length else response.content)


def at(found: Any, path: str) -> Any:
    for part in path.split("."):
        try:
            found = found[int(part) if isinstance(found, list) else part]
        except (KeyError, IndexError):
            return ...
    return found


def flat(found: Any) -> list[Any]:
    if not isinstance(found, list):
        return [found]
    return list(itertools.chain.from_iterable(map(flat, found)))


def check(fact: dict[str, Any], response: httpx.Response) -> None:
    if "tail_b64" in fact:
        length = int(response.headers["inference-header-content-length"])
        assert response.content[length:] == base64.b64decode(fact["tail_b64"])
        return
    found = at(json_of(response), fact["path"])
    if "eq" in fact:
        assert found == fact["eq"]
        assert type(found) is type(fact["eq"])
    if "eq_flat" in fact:
        assert list(map(repr, flat(found))) == list(map(repr, fact["eq_flat"]))
    if "type" in fact:
        kinds = fact["type"].split("|")
        assert (found is ... and "missing" in kinds) or any(
            isinstance(found, TYPES[kind]) for kind in kinds if kind != "missing"
        )
    if fact.get("nonempty"):
        assert found
    if "contains" in fact:
        assert fact["contains"] in found
    if "len" in fact:
        assert len(found) == fact["len"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
async def test_the_answer_is_the_protocol_s(case: dict[str, Any], opened: Open, iris: Any) -> None:
    request = case["request"]
    fixture = request.get("fixture", "")
    late = (served.hosted("late", iris),) if fixture == "loading" else ()
    client = await opened(
        served.hosted("iris", iris), served.hosted("echo", dict),
        served.hosted("boom", served.boom), served.hosted("nan", served.odd),
        late=late, prefix="/iris" if fixture == "prefix" else "",
    )  # fmt: skip
    body, headers = content(request)
    response = await client.request(
        request["method"], request["path"], content=body, headers=headers
    )

    assert response.status_code in case["expect"]["status"], response.text
    for fact in case["expect"]["facts"]:
        check(fact, response)
    if response.status_code >= 400:
        assert list(response.json()) == ["error"]
