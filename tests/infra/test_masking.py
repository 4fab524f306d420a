from __future__ import annotations

import logging

import pytest
from prefect.logging import get_logger

import flows.lifecycle  # noqa: F401 (it masks what Prefect's engine logs)
from infra.errors import BadInputError, RunFailedError
from infra.masking import mask
from infra.workloads.process_group import RateLimitedLog


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("https://user:pass@host/x", "https://***@host/x"),
        ("git+https://ghp_0123@host/x@main", "git+https://***@host/x@main"),
        ("postgresql://u:p@ss:w@host:5432/db", "postgresql://***@host:5432/db"),
        ("Looking in indexes: https://a:b@one/simple, https://c@two/simple",
         "Looking in indexes: https://***@one/simple, https://***@two/simple"),
        ("https://host/x?token=abc&page=2#t", "https://host/x?token=***&page=2#t"),
        ("https://host/x?page=2&X-Amz-Signature=abc", "https://host/x?page=2&X-Amz-Signature=***"),
        ("https://host/x?access_token=a;api_key=b", "https://host/x?access_token=***;api_key=***"),
        ("https://host/x?key=AIza&sig=1", "https://host/x?key=***&sig=***"),
        ("https://host/x?design=a&keyboard=b", "https://host/x?design=a&keyboard=b"),
        ("https://host/a@b?mail=a@b", "https://host/a@b?mail=a@b"),
        ("write to a@b, or ?token=x", "write to a@b, or ?token=x"),
        ("s3://bucket/key and file:///a@b", "s3://bucket/key and file:///a@b"),
    ],
)  # fmt: skip
def test_mask(text: str, masked: str) -> None:
    assert mask(text) == masked
    assert mask(masked) == masked


def test_errors_and_the_lines_of_scripts_are_masked() -> None:
    secret = "https://user:canary@host/?token=canary"
    lines: list[str] = []
    error = BadInputError(secret, secret)
    failed = RunFailedError(secret, secret, state="FAIL TRAIN")

    RateLimitedLog(lines.append, 10)(secret)

    assert "canary" not in f"{error} {error.args} {error.as_dict()} {failed} {lines}"


@pytest.mark.parametrize("name", ["prefect.flow_runs", "prefect.task_runs"])
def test_what_prefect_logs_of_a_failure_is_masked(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: written.append(handler.format(record))  # type: ignore[method-assign]
    logger = get_logger(name)
    monkeypatch.setattr(logger, "handlers", [handler])
    try:
        raise OSError("no answer of https://user:canary@host")
    except OSError as error:
        logger.exception("It failed: %r", error)

    assert "canary" not in written[0]
    assert "Traceback" in written[0]
    assert "https://***@host" in written[0]
