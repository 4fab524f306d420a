"""Servers that are slow, silent, strangers or not to be trusted."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from infra.kubernetes.api import Api
from infra.kubernetes.cluster import ClusterConfig
from infra.kubernetes.transport import RetryPolicy
from tests.infra.kubernetes.scripted import (
    QUICK,
    Answer,
    Asked,
    ScriptedServer,
    certificate,
    kubeconfig,
    refused,
    status,
)

_SILENT = RetryPolicy(attempts=2, seconds=20.0, silent_seconds=0.05, first_wait=0.001)
_JOB = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "my-run"}, "spec": {}}
_OVERLOADED = status(500, "InternalError", "etcdserver: request timed out")


class TestTrouble:
    @pytest.mark.parametrize(
        "trouble",
        [
            _OVERLOADED,
            status(429, "TooManyRequests", "too many requests"),
            Answer(503, b"<html>starting</html>"),
            Answer(200, b"<html>sign in</html>"),
            Answer(200, b"[1]"),
            Answer(200, b'{"items": [', cut=True),
        ],
    )
    def test_it_passes(self, server: ScriptedServer, api: Api, trouble: Answer) -> None:
        server.answers = [trouble, trouble, Answer(body={"gitVersion": "v1"})]

        assert api.version() == "v1"
        assert len(server.asked) == 3

    @pytest.mark.parametrize("trouble", [_OVERLOADED, Answer(200, b"<html>sign in</html>")])
    def test_it_lasts(self, server: ScriptedServer, api: Api, trouble: Answer) -> None:
        server.answers = [trouble]

        found = refused(api.version)

        assert found.code == "ApiUnreachable"
        assert found.transient
        assert len(server.asked) == 3

    def test_what_is_written_is_written_again(self, server: ScriptedServer, api: Api) -> None:
        server.answers = [_OVERLOADED, Answer(201, _JOB)]

        api.create(_JOB)

        assert [asked.body for asked in server.asked] == [_JOB, _JOB]

    def test_a_refusal_is_not_asked_again(self, server: ScriptedServer, api: Api) -> None:
        server.answers = [status(422, "Invalid", "spec: Required value")]

        assert refused(lambda: api.create(_JOB)).code == "ManifestRefused"
        assert len(server.asked) == 1

    def test_a_silent_server(self, server: ScriptedServer, connect: Callable[..., Api]) -> None:
        server.answers = [Answer(hangs=True)]

        found = refused(connect(_SILENT).version)

        assert found.code == "ApiUnreachable"
        assert "silent" in found.message
        assert len(server.asked) == 2

    def test_nobody_listens(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with ScriptedServer(Answer()) as gone:
            url = gone.url
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path / "config", url)))

        found = refused(Api.connect(ClusterConfig(), patience=QUICK).version)

        assert found.code == "ApiUnreachable"
        assert "refused" in found.message
        assert url in found.message

    def test_many_threads_at_once(self, server: ScriptedServer, api: Api) -> None:
        server.answers = [Answer(body={"gitVersion": "v1"})]
        found: list[str] = []
        threads = [threading.Thread(target=lambda: found.append(api.version())) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)

        assert found == ["v1"] * 16


class TestPatience:
    def test_waits_grow_to_a_limit_and_differ(self) -> None:
        patience = RetryPolicy(first_wait=1.0, longest_wait=4.0)

        waits = [[patience.wait(attempt, 0.0) for _ in range(50)] for attempt in range(1, 6)]

        for found, most in zip(waits, [1, 2, 4, 4, 4], strict=True):
            assert all(most / 2 <= wait <= most for wait in found)
            assert len(set(found)) > 1

    @pytest.mark.parametrize(("said", "waited"), [(3.0, 3.0), (60.0, 4.0)])
    def test_the_server_says_when(self, said: float, waited: float) -> None:
        assert RetryPolicy(first_wait=1.0, longest_wait=4.0).wait(1, said) == waited

    def test_retry_after_is_heeded(
        self, server: ScriptedServer, connect: Callable[..., Api]
    ) -> None:
        busy = status(429, "TooManyRequests", "too many requests")
        busy.headers["retry-after"] = "7"
        server.answers = [busy]
        # 7 s would end after the 5 s that there are: it is not asked again.
        patience = RetryPolicy(seconds=5.0, first_wait=0.001)

        assert refused(connect(patience).version).transient
        assert len(server.asked) == 1

    def test_a_date_is_not_waited_for(self, server: ScriptedServer, api: Api) -> None:
        busy = status(429, "TooManyRequests", "too many requests")
        busy.headers["retry-after"] = "Wed, 21 Oct 2099 07:28:00 GMT"
        server.answers = [busy, Answer(body={"gitVersion": "v1"})]

        assert api.version() == "v1"


def _guarded(token: str) -> Callable[[Asked], Answer]:
    def answer(asked: Asked) -> Answer:
        if asked.headers.get("authorization") == f"Bearer {token}":
            return Answer(body={"gitVersion": "v1"})
        return status(401, "Unauthorized", "Unauthorized")

    return answer


class TestCredentials:
    def test_a_token_that_is_replaced_is_read_anew(
        self, server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        token = tmp_path / "token"
        token.write_text("canary-first")
        file = kubeconfig(tmp_path / "config", server.url, user={"tokenFile": "token"})
        monkeypatch.setenv("KUBECONFIG", str(file))
        server.answers = [_guarded("canary-second")]
        api = Api.connect(ClusterConfig(), patience=QUICK)

        assert refused(api.version).code == "Unauthorized"
        token.write_text("canary-second")
        assert api.version() == "v1"

    def test_one_that_is_no_good(self, server: ScriptedServer, api: Api) -> None:
        server.answers = [_guarded("canary-other")]

        assert refused(api.version).code == "Unauthorized"
        assert len(server.asked) == 2


class TestTls:
    @pytest.fixture
    def secured(self, tmp_path: Path) -> Iterator[ScriptedServer]:
        certificate(tmp_path / "server")
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")
        made = ScriptedServer(Answer(body={"gitVersion": "v1"}))
        made.secure(context)
        with made:
            yield made

    @pytest.mark.parametrize(
        ("authority", "code"),
        [
            ("server.crt", ""),
            ("other.crt", "CertificateInvalid"),
            ("no.crt", "CertificateInvalid"),
        ],
    )
    def test_the_authority_that_is_named(
        self,
        secured: ScriptedServer,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        authority: str,
        code: str,
    ) -> None:
        certificate(tmp_path / "other")
        (tmp_path / "no.crt").write_text("canary")
        file = kubeconfig(tmp_path / "config", secured.url, **{"certificate-authority": authority})
        monkeypatch.setenv("KUBECONFIG", str(file))
        api = Api.connect(ClusterConfig(), patience=QUICK)

        if code:
            found = refused(api.version)
            assert found.code == code
            assert not found.transient
            assert secured.url in found.message
        else:
            assert api.version() == "v1"

    def test_one_that_is_replaced(
        self, secured: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        certificate(tmp_path / "other")
        authority = tmp_path / "authority.crt"
        authority.write_bytes((tmp_path / "other.crt").read_bytes())
        file = kubeconfig(
            tmp_path / "config", secured.url, **{"certificate-authority": str(authority)}
        )
        monkeypatch.setenv("KUBECONFIG", str(file))
        api = Api.connect(ClusterConfig(), patience=QUICK)
        authority.write_bytes((tmp_path / "server.crt").read_bytes())

        assert api.version() == "v1"

    def test_no_tls_where_it_is_expected(
        self, server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        url = server.url.replace("http://", "https://")
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path / "config", url)))

        assert refused(Api.connect(ClusterConfig(), patience=QUICK).version).message
