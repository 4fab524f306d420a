"""Models that a server serves, over both protocols."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from modelyard_runtime.frames import objects

from serving.server_http import ServedModel
from tasks.batch_inference.planning import PlannedPiece
from tasks.batch_inference.predictor_client import PredictionError, PredictorStartError
from tasks.batch_inference.server_connection import connect
from tasks.batch_inference.shard import SECRETS, ShardSpec, read_status, write_spec
from tasks.batch_inference.splitting import split
from tests.tasks.batch_inference.model_server import ModelServer, language_server, line_server

SHARD = (sys.executable, "-m", "tasks.batch_inference.shard")
COLUMNS = {"x": np.array([1.0, 2.0, 3.0]), "name": objects(["a", "b", "ü"])}


def _served(server: ModelServer, **fields: str) -> ServedModel:
    return ServedModel(server.url, **{"registered": "line", **fields})


class TestInferenceProtocol:
    @pytest.mark.parametrize("most", [0, 2])
    def test_columns_are_tensors(self, most: int) -> None:
        with line_server(most).running() as server, connect(_served(server)) as client:
            found = client.infer({**COLUMNS, "other": COLUMNS["x"]}, 10)

        assert found["y"].tolist() == [[3.0], [5.0], [7.0]]
        assert found["loud"].tolist() == ["A", "B", "Ü"]
        sizes = [[one["shape"] for one in body["inputs"]] for body in server.seen]
        assert sizes == ([[[2, 1], [2]], [[1, 1], [1]]] if most else [[[3, 1], [3]]])
        assert {one["datatype"] for one in server.seen[0]["inputs"]} == {"FP32", "BYTES"}

    @pytest.mark.parametrize("extensions", [(), ("binary_tensor_data",)])
    def test_numbers_are_bytes_where_the_server_takes_them(
        self, extensions: tuple[str, ...]
    ) -> None:
        with line_server(2, *extensions).running() as server, connect(_served(server)) as client:
            found = client.infer(COLUMNS, 10)

        assert found["y"].tolist() == [[3.0], [5.0], [7.0]]
        assert found["loud"].tolist() == ["A", "B", "Ü"]
        assert server.binary == (2 if extensions else 0)

    def test_missing_numbers_reach_a_model_that_takes_bytes(self) -> None:
        columns = {"x": np.array([np.nan, np.inf]), "name": objects(["a", "b"])}
        with line_server(0, "binary_tensor_data").running() as server:
            with connect(_served(server)) as client:
                found = client.infer(columns, 10)["y"]
                with pytest.raises(PredictionError, match="a number is too large"):
                    client.infer({**columns, "x": np.array([1e300, np.nan])}, 10)
            described = server.answers["GET /v2/models/line"](None)[1]
            described["inputs"][0]["datatype"] = "INT32"
            with (
                connect(_served(server)) as client,
                pytest.raises(PredictionError, match="a number is missing"),
            ):
                client.infer(columns, 10)
        assert np.isnan(found[0, 0])
        assert found[1, 0] == np.inf

    def test_rows_of_the_only_input(self) -> None:
        with line_server().running() as server:
            described = server.answers["GET /v2/models/line"](None)[1]
            described["inputs"].pop()
            server.answers["POST /v2/models/line/infer"] = lambda body: (200, {
                "outputs": [{"name": "y", "datatype": "INT64", "shape": [2], "data": [
                    len(body["inputs"][0]["data"]), body["inputs"][0]["shape"][1]]}]
            })  # fmt: skip
            with connect(_served(server)) as client:
                for columns in (
                    {"input": np.ones((2, 3))},
                    {"a": np.ones(2), "b": np.ones(2), "c": np.ones(2)},
                ):
                    assert client.infer(columns, 10)["prediction"].tolist() == [6, 3]

    @pytest.mark.parametrize(
        ("columns", "reason"),
        [
            ({"x": np.array([13.0]), "name": objects(["a"])}, "answers 400: unlucky"),
            ({"x": np.array([1.0])}, "The model takes x, name; the records have no name."),
            ({"x": objects(["high"]), "name": objects(["a"])}, "x cannot be FP32: .* 'high'"),
            ({"x": np.array([np.nan]), "name": objects(["a"])}, "a number is missing"),
            ({"x": np.array([1e300]), "name": objects(["a"])}, "a number is too large"),
        ],
    )
    def test_what_it_refuses_is_told_at_once(self, columns: Any, reason: str) -> None:
        with (
            line_server().running() as server,
            connect(_served(server)) as client,
            pytest.raises(PredictionError, match=reason) as raised,
        ):
            client.infer(columns, 10)

        assert not raised.value.is_late

    @pytest.mark.parametrize(
        ("datatype", "value"), [("FP32", "1.5"), ("INT64", "9007199254740993"), ("UINT8", "7")]
    )
    def test_texts_of_numbers_are_numbers(self, datatype: str, value: str) -> None:
        with line_server().running() as server:
            described = server.answers["GET /v2/models/line"](None)[1]
            described["inputs"][0]["datatype"] = datatype
            with connect(_served(server)) as client:
                client.infer({"x": objects([value]), "name": objects(["a"])}, 10)
            assert [str(one) for one in server.seen[0]["inputs"][0]["data"]] == [value]

    @pytest.mark.parametrize(
        ("datatype", "value"),
        [("UINT8", 300.0), ("UINT8", -1), ("INT64", 0.5), ("BOOL", 2), ("BOOL", "false")],
    )
    def test_no_value_becomes_another(self, datatype: str, value: Any) -> None:
        with line_server().running() as server:
            described = server.answers["GET /v2/models/line"](None)[1]
            described["inputs"][0]["datatype"] = datatype
            with connect(_served(server)) as client:
                column = objects([value]) if isinstance(value, str) else np.array([value])
                with pytest.raises(PredictionError, match=f"x cannot be {datatype}"):
                    client.infer({"x": column, "name": objects(["a"])}, 10)
            assert not server.seen

    @pytest.mark.parametrize(
        "answer",
        [
            b"no JSON", {}, {"outputs": []}, {"outputs": [{"name": "y"}]}, [],
            {"outputs": [{"name": "y", "datatype": "FP32", "shape": [2], "data": [1]}]},
            {"outputs": [{"name": "y", "datatype": "FP32", "shape": [1], "data": [1]}]},
            {"outputs": [{"name": "y", "datatype": "FP32", "shape": [], "data": [1]}]},
            {"outputs": [{"name": "y", "datatype": "QUBIT", "shape": [3], "data": [1, 2, 3]}]},
        ],
    )  # fmt: skip
    def test_what_is_no_answer_is_told(self, answer: Any) -> None:
        with line_server().running() as server, connect(_served(server)) as client:
            server.before = [(200, answer)]
            with pytest.raises(PredictionError, match=r"no answer|answered others"):
                client.infer(COLUMNS, 10)
            assert len(client.infer(COLUMNS, 10)["y"]) == 3

    def test_a_model_that_is_not_there_is_told(self) -> None:
        with (
            line_server().running() as server,
            pytest.raises(PredictorStartError, match=r"no model 'curve': .* server_model"),
        ):
            connect(_served(server, name="curve"))


class TestCompletions:
    def test_prompts_and_messages(self) -> None:
        with language_server().running() as server, connect(_served(server)) as client:
            prompts = {"prompt": objects(["one", "two"]), "max_tokens": np.array([2, 9])}
            chat = {"messages": objects([[{"role": "user", "content": "hi"}]])}

            assert client.infer(prompts, 10)["prediction"].tolist() == ["ON", "TWO"]
            assert client.infer(chat, 10)["prediction"].tolist() == ["HI"]
        assert {one["model"] for one in server.seen} == {"owner/small"}

    @pytest.mark.parametrize(
        ("columns", "reason"),
        [
            ({"prompt": objects(["fine", "unlucky"])}, "answers 400: The prompt is unlucky"),
            ({"text": objects(["fine"])}, "neither a prompt nor messages"),
            ({"input": np.ones((1, 2))}, "neither a prompt nor messages"),
        ],
    )
    def test_what_it_refuses_is_told(self, columns: Any, reason: str) -> None:
        with (
            language_server().running() as server,
            connect(_served(server)) as client,
            pytest.raises(PredictionError, match=reason),
        ):
            client.infer(columns, 10)

    def test_what_was_answered_is_not_asked_again(self) -> None:
        prompts = ["a", "unlucky", "b", "a"]
        with language_server().running() as server, connect(_served(server)) as client:
            with pytest.raises(PredictionError):
                client.infer({"prompt": objects(prompts)}, 10)
            asked = len(server.seen)
            for some in (["a"], ["b", "a"], ["b"]):
                found = client.infer({"prompt": objects(some)}, 10)
                assert found["prediction"].tolist() == [one.upper() for one in some]
            assert len(server.seen) == asked == 4
            client.infer({"prompt": objects(["c", "d"])}, 10)
            client.infer({"prompt": objects(["a"])}, 10)
            client.infer({"prompt": objects(["a"])}, 10)
            assert len(server.seen) == 8

    def test_options_that_are_missing_are_left_out(self) -> None:
        columns = {"prompt": objects(["a", "b"]), "max_tokens": np.array([3.0, np.nan])}
        with language_server().running() as server, connect(_served(server)) as client:
            client.infer(columns, 10)

        seen = {one["prompt"]: one for one in server.seen}
        assert seen["a"]["max_tokens"] == 3
        assert isinstance(seen["a"]["max_tokens"], int)
        assert "max_tokens" not in seen["b"]

    def test_a_model_that_is_not_there_is_told(self) -> None:
        with (
            language_server().running() as server,
            pytest.raises(PredictorStartError, match="has the models owner/small: name one"),
        ):
            connect(_served(server, name="owner/large"))


class TestFaults:
    def test_a_busy_server_is_asked_again(self) -> None:
        with line_server().running() as server, connect(_served(server)) as client:
            server.before = [(503, b""), (429, {"error": "busy"}), (502, b"<html>")]
            assert len(client.infer(COLUMNS, 30)["y"]) == 3

    def test_one_that_stays_busy_is_late(self) -> None:
        with line_server().running() as server, connect(_served(server)) as client:
            server.before = [(503, {"error": "loading"})] * 100
            with pytest.raises(PredictionError, match="answers 503: loading") as raised:
                client.infer(COLUMNS, 0.5)
        assert raised.value.is_late

    def test_one_that_does_not_answer_is_late(self) -> None:
        server = line_server()
        server.seconds = 2
        with (
            server.running(),
            connect(_served(server)) as client,
            pytest.raises(PredictionError, match="did not answer") as raised,
        ):
            client.infer(COLUMNS, 0.3)
        assert raised.value.is_late

    def test_one_that_comes_back_is_asked_again(self) -> None:
        server = line_server()
        with server.running():
            client = connect(_served(server))
        port = int(server.url.rpartition(":")[2])

        def come_back() -> None:
            time.sleep(0.5)
            with server.running(port):
                done.wait(30)

        done = threading.Event()
        back = threading.Thread(target=come_back)
        back.start()
        try:
            with client:
                assert len(client.infer(COLUMNS, 30)["y"]) == 3
        finally:
            done.set()
            back.join()

    def test_a_model_that_is_still_loaded_is_awaited(self) -> None:
        with line_server().running() as server:
            described = server.answers["GET /v2/models/line"]
            ready = server.answers["GET /v2/health/ready"]
            asked = []

            def loading(_: Any) -> Any:
                asked.append(1)
                if len(asked) == 3:
                    server.answers["GET /v2/models/line"] = described
                    server.answers["GET /v2/health/ready"] = ready
                return 400, {"error": "Request for unknown model: 'line' is not found"}

            server.answers["GET /v2/models/line"] = loading
            server.answers["GET /v2/health/ready"] = lambda _: (400, b"")
            with connect(_served(server)) as client:
                assert len(client.infer(COLUMNS, 10)["y"]) == 3
        assert len(asked) == 3

    def test_one_that_is_not_there_is_told(self) -> None:
        with pytest.raises(
            PredictorStartError, match=r"is not ready after 0.3 seconds: it cannot be reached"
        ):
            connect(ServedModel("http://127.0.0.1:9", "line", start_seconds=0.3))

    def test_one_of_another_protocol_is_told(self) -> None:
        with (
            ModelServer({}).running() as server,
            pytest.raises(PredictorStartError, match="speaks neither"),
        ):
            connect(_served(server))

    @pytest.mark.parametrize("token", ["a\nb", "schlüssel"])
    def test_a_token_that_no_header_carries_is_not_shown(self, token: str) -> None:
        with pytest.raises(PredictorStartError, match="no header can carry") as raised:
            connect(ServedModel("http://127.0.0.1:9", "line", token=token))
        assert token not in str(raised.value)

    def test_one_whose_description_is_none_is_told_at_once(self) -> None:
        answers = {"GET /v2": lambda _: (200, {}), "GET /v2/models/line": lambda _: (200, [])}
        with (
            ModelServer(answers).running() as server,
            pytest.raises(PredictorStartError, match="no answer"),
        ):
            connect(_served(server))

    def test_one_that_repeats_its_token_does_not_tell_it(self) -> None:
        told = {"error": f"{'x' * 290} no Bearer open-sesame"}
        with line_server().running() as server:
            with connect(_served(server, token="open-sesame")) as client:
                server.answers["POST /v2/models/line/infer"] = lambda _: (400, told)
                with pytest.raises(PredictionError, match=r"answers 400: x+") as raised:
                    client.infer(COLUMNS, 10)
            server.answers["GET /v2"] = lambda _: (403, told)
            with pytest.raises(PredictorStartError, match=r"answers 403: x+") as refused:
                connect(_served(server, token="open-sesame"))
        assert "open" not in str(raised.value) + str(refused.value)

    def test_one_that_wants_a_token_is_told(self) -> None:
        answers = {"GET /v2": lambda _: (401, {"error": "no token"})}
        with (
            ModelServer(answers).running() as server,
            pytest.raises(PredictorStartError, match="answers 401: no token"),
        ):
            connect(_served(server))


@pytest.mark.integration
def test_a_shard_asks_a_server(tmp_path: Path) -> None:
    lines = [json.dumps({"x": at, "name": "n"}) + "\n" for at in range(30)]
    (tmp_path / "a.jsonl").write_text("".join(lines))
    (tmp_path / "parts").mkdir()
    with line_server().running() as server:
        parts = [
            PlannedPiece(at, tmp_path / "a.jsonl", part)
            for at, part in enumerate(split(tmp_path / "a.jsonl", "jsonl", 10_000))
        ]
        served = _served(server, token="secret:mine")
        spec = ShardSpec(
            parts, tmp_path / "parts", tmp_path / "status.json", "jsonl", served, 8, 30, 9
        )
        write_spec(spec, tmp_path / "spec.json")
        command = [
            sys.executable,
            "-m",
            "tasks.batch_inference.shard",
            str(tmp_path / "spec.json"),
        ]
        given = {**os.environ, SECRETS: json.dumps({"token": "open-sesame"})}

        ended = subprocess.run(command, env=given, capture_output=True, text=True, timeout=60)

    assert ended.returncode == 0, ended.stderr
    status = read_status(tmp_path / "status.json")
    assert status is not None
    assert (status.rows, status.failed) == (29, 1)
    errors = json.loads((tmp_path / "parts" / "00000000.errors.jsonl").read_text())
    assert errors == {"row": 13, "error": "The server answers 400: unlucky"}
    assert set(server.tokens) == {"Bearer open-sesame"}
    assert "open-sesame" not in "".join(
        path.read_text() for path in tmp_path.rglob("*") if path.is_file()
    )


@pytest.mark.integration
def test_a_shard_whose_server_lacks_the_model_says_so(tmp_path: Path) -> None:
    with line_server().running() as server:
        spec = ShardSpec(
            [], tmp_path, tmp_path / "status.json", "jsonl", _served(server, name="x"), 8, 30, 9
        )
        write_spec(spec, tmp_path / "spec.json")
        command = [
            sys.executable,
            "-m",
            "tasks.batch_inference.shard",
            str(tmp_path / "spec.json"),
        ]

        ended = subprocess.run(command, capture_output=True, text=True, timeout=60)

    assert ended.returncode == 1
    status = read_status(tmp_path / "status.json")
    assert status is not None
    assert "has no model 'x'" in status.failure
