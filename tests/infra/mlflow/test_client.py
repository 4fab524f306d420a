"""Requests to MLflow and its answers, without a server; with one they are in tests/registry."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from infra.mlflow import Metric, MlflowClient, MlflowException, transport
from infra.mlflow.artifacts import ServedRepository, repository

URI = "http://mlflow.test/prefix"
Answers = Callable[..., list[httpx.Request]]


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Iterator[Answers]:
    """Have the server give these answers in turn; the requests that it gets."""
    pauses: list[float] = []
    monkeypatch.setattr(transport.time, "sleep", pauses.append)

    def give(*given: httpx.Response | Exception) -> list[httpx.Request]:
        left, asked = list(given), []

        def handle(request: httpx.Request) -> httpx.Response:
            request.read()
            asked.append(request)
            answer = left.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

        client = httpx.Client(transport=httpx.MockTransport(handle))
        monkeypatch.setattr(transport, "_client", lambda _: client)
        return asked

    yield give
    assert all(later >= sooner for sooner, later in itertools.pairwise(pauses))


def ok(**content: Any) -> httpx.Response:
    return httpx.Response(200, json=content)


def refusal(status: int, code: str) -> httpx.Response:
    return httpx.Response(status, json={"error_code": code, "message": "no"})


class TestRequests:
    def test_what_is_not_given_is_not_sent(self, answers: Answers) -> None:
        asked = answers(ok(run_info={"run_id": "r", "experiment_id": "1"}))

        MlflowClient(f"{URI}/").update_run("r", "RUNNING")

        assert str(asked[0].url) == f"{URI}/api/2.0/mlflow/runs/update"
        assert json.loads(asked[0].content) == {"run_id": "r", "status": "RUNNING"}

    def test_values_that_json_has_no_number_for(self, answers: Answers) -> None:
        asked = answers(ok())

        values = [Metric("m", value, 1, 0) for value in (math.nan, math.inf, -math.inf, 0.5)]
        MlflowClient(URI).log_batch("r", values)

        sent = [one["value"] for one in json.loads(asked[0].content)["metrics"]]
        assert sent == ["NaN", "Infinity", "-Infinity", 0.5]

    def test_metrics_are_read_page_by_page_whatever_their_values(self, answers: Answers) -> None:
        answers(
            ok(metrics=[{"key": "m", "value": "NaN"}], next_page_token="more"),
            ok(metrics=[{"key": "m", "value": "Infinity", "timestamp": 2, "step": 1}]),
        )

        found = MlflowClient(URI).get_metric_history("r", "m")

        assert math.isnan(found[0].value)
        assert found[1] == Metric("m", math.inf, 2, 1)

    def test_a_prompt_is_no_model(self, answers: Answers) -> None:
        tags = [{"key": "mlflow.prompt.is_prompt", "value": "true"}]
        answers(ok(registered_model={"name": "p", "tags": tags}))

        with pytest.raises(MlflowException) as raised:
            MlflowClient(URI).get_registered_model("p")

        assert raised.value.error_code == "RESOURCE_DOES_NOT_EXIST"

    def test_an_experiment_that_does_not_exist_is_none(self, answers: Answers) -> None:
        answers(refusal(404, "RESOURCE_DOES_NOT_EXIST"))

        assert MlflowClient(URI).get_experiment_by_name("e") is None


class TestFailures:
    def test_a_transient_one_is_asked_again(self, answers: Answers) -> None:
        asked = answers(
            httpx.ConnectError("refused"), refusal(503, "TEMPORARILY_UNAVAILABLE"),
            httpx.Response(500, text="<html>"), ok(),
        )  # fmt: skip

        MlflowClient(URI).set_tag("r", "k", "v")

        assert len(asked) == 4

    def test_one_that_stays_ends_after_as_many_retries_as_mlflow_is_told(
        self, answers: Answers, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        asked = answers(*3 * [httpx.ReadTimeout("late")])

        with pytest.raises(MlflowException, match="late") as raised:
            MlflowClient(URI).set_tag("r", "k", "v")

        assert (len(asked), raised.value.status_code) == (3, 500)

    def test_a_refusal_has_mlflows_code_and_is_not_repeated(self, answers: Answers) -> None:
        asked = answers(refusal(400, "INVALID_PARAMETER_VALUE"))

        with pytest.raises(MlflowException, match="INVALID_PARAMETER_VALUE: no") as raised:
            MlflowClient(URI).set_tag("r", "k", "v")

        assert (raised.value.error_code, raised.value.status_code) == (
            "INVALID_PARAMETER_VALUE", 400,
        )  # fmt: skip
        assert len(asked) == 1

    @pytest.mark.parametrize("page", ["<html>login</html>", "[]"])
    def test_an_answer_that_is_not_mlflows_is_an_error(self, answers: Answers, page: str) -> None:
        answers(httpx.Response(200, text=page))

        with pytest.raises(MlflowException, match=r"not MLflow's"):
            MlflowClient(URI).get_run("r")


class TestCredentials:
    @pytest.mark.parametrize(
        ("variables", "header"),
        [
            ({"MLFLOW_TRACKING_USERNAME": "u", "MLFLOW_TRACKING_PASSWORD": "p"}, "Basic dTpw"),
            ({"MLFLOW_TRACKING_TOKEN": "t"}, "Bearer t"),
            ({}, None),
        ],
    )
    def test_they_are_those_of_mlflows_variables(
        self, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], header: str | None
    ) -> None:
        for name in (
            "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN",
        ):  # fmt: skip
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

        assert transport._client(URI).headers.get("Authorization") == header


class TestArtifacts:
    def test_those_of_the_server_are_below_its_address(self) -> None:
        found = repository("mlflow-artifacts:/1/r/artifacts", URI)

        assert isinstance(found, ServedRepository)
        served = f"{URI}/api/2.0/mlflow-artifacts/artifacts"
        assert found.artifact_uri == f"{served}/1/r/artifacts"
        other = repository("mlflow-artifacts://other:1/1/r", URI)
        assert other.artifact_uri.startswith("http://other:1/prefix/api/")

    def test_a_listed_file_is_no_folder(self, answers: Answers) -> None:
        listed = {"path": "f", "is_dir": False, "file_size": 3}
        answers(ok(files=[listed]), ok(files=[listed, {"path": "g", "is_dir": True}]))
        found = repository("mlflow-artifacts:/1/r", URI)

        assert found.list_artifacts("f") == []
        assert [(one.path, one.file_size) for one in found.list_artifacts("d")] == [
            ("d/f", 3), ("d/g", None),
        ]  # fmt: skip

    @pytest.mark.parametrize("name", ["../f", "/f"])
    def test_a_name_outside_its_folder_is_refused(self, answers: Answers, name: str) -> None:
        answers(ok(files=[{"path": name, "is_dir": False}]))

        with pytest.raises(MlflowException, match="artifact of the name"):
            repository("mlflow-artifacts:/1/r", URI).list_artifacts()

    def test_a_folder_is_sent_file_by_file_and_again_from_the_start(
        self, answers: Answers, tmp_path: Path
    ) -> None:
        (tmp_path / "in").mkdir()
        (tmp_path / "in" / "a b.txt").write_bytes(b"content")
        asked = answers(httpx.WriteError("reset"), httpx.Response(200))

        repository("mlflow-artifacts:/1/r", URI).log_artifacts(str(tmp_path), "to")

        assert [one.content for one in asked] == [b"content", b"content"]
        assert asked[1].url.raw_path.endswith(b"/1/r/to/in/a%20b.txt")
        assert asked[1].headers["Content-Length"] == "7"

    def test_those_elsewhere_are_reached_by_mlflows_own_client(self, tmp_path: Path) -> None:
        (tmp_path / "f").write_text("x")

        found = repository(tmp_path.as_uri(), URI)

        assert [one.path for one in found.list_artifacts()] == ["f"]
        with pytest.raises(MlflowException):
            found.list_artifacts("../..")
