"""The excerpt of what a server printed."""

from __future__ import annotations

from serving.server_log import ServerLog


def _excerpt(*lines: str) -> list[str]:
    log = ServerLog()
    for line in lines:
        log.add(line)
    return log.excerpt().splitlines()


def test_the_reason_is_there_although_tables_follow_it() -> None:
    """As Triton 2.51 ends."""
    reason = "E1125 14:51:18.24 1 model_lifecycle.cc:642] \"failed to load 'm' version 1: Internal"
    last = [f'I1125 14:51:18.25 1 server.cc:305] "Waiting {at}"' for at in range(4)]
    end = "error: creating server: Internal - failed to load all models"
    table = ["+------+", "| Option | Value |"] * 50

    found = _excerpt("I1125 loading", reason, *table, *last, "", end)

    assert found == ["The server printed:", reason, *last, end]


def test_an_argument_that_it_does_not_have_is_there_although_its_usage_follows() -> None:
    reason = "tritonserver: unrecognized option '--no-such-option=1'"

    assert _excerpt(reason, *["Usage:"] * 100)[1] == reason


def test_lines_are_shown_once_and_not_too_many_or_too_long() -> None:
    found = _excerpt(*[f"ValueError: {at}" + "x" * 1000 for at in range(100)])

    assert [line[:14] for line in found[1:]] == [f"ValueError: {at}" for at in range(90, 100)]
    assert max(map(len, found)) == 300


def test_one_that_printed_nothing_says_so() -> None:
    assert _excerpt() == _excerpt("", "| a table |") == ["It printed nothing."]
