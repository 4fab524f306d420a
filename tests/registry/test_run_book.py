"""What a run leaves in a real MLflow, and in one that is broken."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import MlflowException, RestException
from requests import ConnectionError as NoConnectionError
from requests import HTTPError, Response

from registry import run_book, tracking
from registry.run_book import RunBook, Value
from tests.processes import eventually

pytestmark = pytest.mark.usefixtures("mlflow")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_book, "_RETRY_SECONDS", 0.01)


@pytest.fixture
def run_id(name: str) -> str:
    return str(tracking.client().create_run(tracking.ensure_experiment(name)).info.run_id)


@pytest.fixture
def warned() -> list[str]:
    return []


@pytest.fixture
def book(run_id: str, warned: list[str]) -> RunBook:
    return RunBook(run_id, warned.append)


def test_everything_is_there_in_the_end(book: RunBook, run_id: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "in it").write_text("x")
    (tmp_path / "file").write_text("y")
    values = [Value("a/b", float(n), n, 1000.0 + n) for n in range(1500)]
    done: list[str] = []
    book.add("metrics", lambda: book.metrics(values), lambda: done.append("metrics"))
    book.add("tags", lambda: book.tags({"t": "1"}))
    book.add("a folder", lambda: book.file(tmp_path / "folder", "deep/folder"))
    book.add("a file", lambda: book.file(tmp_path / "file", ""))
    assert book.close(60) == []
    mlflow = tracking.client()
    assert len(mlflow.get_metric_history(run_id, "a/b")) == 1500
    assert mlflow.get_run(run_id).data.tags["t"] == "1"
    assert [one.path for one in mlflow.list_artifacts(run_id, "deep/folder")] == [
        "deep/folder/in it"
    ]
    assert "file" in [one.path for one in mlflow.list_artifacts(run_id)]
    assert done == ["metrics"]


def test_the_same_twice_is_there_once(book: RunBook, run_id: str) -> None:
    for _ in range(2):
        book.add("metrics", lambda: book.metrics([Value("a", 1.0, 0, 5.0)]))
    assert book.close(60) == []
    assert len(tracking.client().get_metric_history(run_id, "a")) == 1


@pytest.mark.parametrize(
    "error",
    [MlflowException("it is starting"), NoConnectionError("refused"), OSError("reset")],
)
def test_what_mlflow_cannot_take_now_is_tried_again(
    book: RunBook, error: Exception, warned: list[str]
) -> None:
    tried: list[int] = []

    def write() -> None:
        tried.append(1)
        if len(tried) < 4:
            raise error

    book.add("it", write)
    assert book.close(60) == []
    assert (len(tried), warned) == (4, [])


def http_error(status: int) -> HTTPError:
    response = Response()
    response.status_code = status
    return HTTPError(f"it is {status}", response=response)


@pytest.mark.parametrize(
    "error",
    [
        RestException({"error_code": "INVALID_PARAMETER_VALUE", "message": "no"}),
        http_error(413),
        FileNotFoundError("gone"),
    ],
)
def test_what_is_refused_for_good_is_told_and_the_rest_goes_on(
    book: RunBook, error: Exception, warned: list[str]
) -> None:
    tried: list[int] = []

    def refused() -> None:
        tried.append(1)
        raise error

    done: list[str] = []
    book.add("the bad one", refused, lambda: done.append("bad"))
    book.add("the good one", lambda: None, lambda: done.append("good"))
    assert book.close(60) == ["the bad one"]
    assert (len(tried), done) == (1, ["good"])
    assert "the bad one" in warned[0]


def test_a_server_that_is_overloaded_is_asked_again(book: RunBook) -> None:
    errors: list[Any] = [http_error(503), http_error(429), None]

    def write() -> None:
        error = errors.pop(0)
        if error:
            raise error

    book.add("it", write)
    assert book.close(60) == []
    assert errors == []


def test_while_mlflow_is_away_nobody_waits_and_what_is_missing_is_named(book: RunBook) -> None:
    def fail() -> None:
        raise MlflowException("away")

    book.add("first", fail)
    book.add("second", lambda: None)
    assert sorted(book.close(0.05)) == ["first", "second"]


def test_what_hangs_is_named_too(book: RunBook) -> None:
    began, let_go = threading.Event(), threading.Event()

    def hang() -> None:
        began.set()
        let_go.wait(30)

    book.add("hanging", hang)
    book.add("behind it", lambda: None)
    eventually(began.is_set, "it has begun")
    assert book.close(0.01) == ["hanging", "behind it"]
    let_go.set()
