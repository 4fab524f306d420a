from __future__ import annotations

import pytest

from infra.door import origin
from infra.door.origin import AllowedHosts


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("127.0.0.1:4200", True),
        ("127.0.0.1", True),
        ("localhost:4200", True),
        ("LOCALHOST:14200", True),  # a forwarded port
        ("[::1]:4200", True),
        ("[::1]", True),
        ("ml.example:443", True),
        ("ml.example", True),
        ("", False),
        ("evil.example:4200", False),
        ("127.0.0.1.evil.example", False),
        ("localhost.evil.example:4200", False),
        ("localhost:evil", False),
        ("evil@localhost", False),
        ("localhost.", False),
    ],
)
def test_a_server_answers_under_its_own_names_only(host: str, allowed: bool) -> None:
    assert AllowedHosts(["ml.example ", ""]).allows(host.encode()) is allowed


@pytest.mark.parametrize(
    ("sent", "foreign"),
    [
        (None, False),
        ("http://127.0.0.1:4200", False),
        ("https://127.0.0.1:4200", False),  # a proxy ended the encryption
        ("HTTP://127.0.0.1:4200", False),
        ("http://127.0.0.1:9999", True),
        ("http://localhost:4200", True),
        ("http://127.0.0.1", True),
        ("http://evil.example", True),
        ("file://", True),
        ("null", True),
        ("", True),
        ("chrome-extension://127.0.0.1:4200", True),
    ],
)
def test_an_origin_is_foreign_unless_it_is_the_host(sent: str | None, foreign: bool) -> None:
    headers = {b"host": b"127.0.0.1:4200"}
    if sent is not None:
        headers[b"origin"] = sent.encode()

    assert origin.is_foreign(headers) is foreign


@pytest.mark.parametrize(
    ("host", "sent"),
    [("ml.example", "https://ml.example:443"), ("ml.example:80", "http://ml.example")],
)
def test_the_usual_port_may_be_left_out(host: str, sent: str) -> None:
    assert not origin.is_foreign({b"host": host.encode(), b"origin": sent.encode()})


@pytest.mark.parametrize("site", ["same-site", "cross-site", "something-new"])
def test_a_page_of_another_origin_may_only_open_a_page(site: str) -> None:
    def sent(mode: str, dest: str) -> dict[bytes, bytes]:
        return {
            b"sec-fetch-site": site.encode(),
            b"sec-fetch-mode": mode.encode(),
            b"sec-fetch-dest": dest.encode(),
        }

    assert not origin.is_cross_origin("GET", sent("navigate", "document"))
    assert origin.is_cross_origin("POST", sent("navigate", "document"))
    assert origin.is_cross_origin("HEAD", sent("navigate", "document"))
    assert origin.is_cross_origin("GET", sent("navigate", "iframe"))
    assert origin.is_cross_origin("GET", sent("no-cors", "image"))
    assert origin.is_cross_origin("GET", sent("cors", "empty"))
    assert origin.is_cross_origin("GET", {b"sec-fetch-site": site.encode()})


@pytest.mark.parametrize("site", ["same-origin", "none"])
def test_its_own_pages_and_people_may_all(site: str) -> None:
    headers = {b"sec-fetch-site": site.encode(), b"sec-fetch-mode": b"cors"}

    assert not origin.is_cross_origin("POST", headers)
    assert not origin.is_cross_origin("POST", {})


@pytest.mark.parametrize("name", [b"host", b"origin", b"authorization", b"sec-fetch-site"])
def test_a_second_header_that_a_rule_depends_on_is_noticed(name: bytes) -> None:
    assert origin.collect([(name, b"1"), (b"accept", b"2")]) == {name: b"1", b"accept": b"2"}
    assert origin.collect([(name, b"1"), (name, b"2")]) is None
    assert origin.collect([(b"accept", b"1"), (b"accept", b"2")]) == {b"accept": b"2"}
