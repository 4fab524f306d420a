from __future__ import annotations

import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.kubernetes.api import KINDS, Api, Patience
from infra.kubernetes.cluster import Cluster
from infra.kubernetes.refusals import ClusterError
from tests.infra.kubernetes.scripted import (
    Answer,
    Asked,
    ScriptedServer,
    certificate,
    kubeconfig,
    status,
)

_QUICK = Patience(
    attempts=3,
    seconds=20.0,
    connect_seconds=5.0,
    silent_seconds=5.0,
    first_wait=0.001,
    longest_wait=0.002,
)
_SILENT = Patience(attempts=2, seconds=20.0, silent_seconds=0.05, first_wait=0.001)
_JOB = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "my-run"}, "spec": {}}
_OVERLOADED = status(500, "InternalError", "etcdserver: request timed out")


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer(Answer(body={})) as made:
        yield made


@pytest.fixture
def connect(
    server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Api]:
    file = kubeconfig(tmp_path / "config", server.url)
    monkeypatch.setenv("KUBECONFIG", str(file))

    def made(patience: Patience = _QUICK, **cluster: Any) -> Api:
        return Api.connect(Cluster(**cluster), patience=patience)

    return made


@pytest.fixture
def api(connect: Callable[..., Api]) -> Api:
    return connect()


def _refused(call: Callable[[], object]) -> ClusterError:
    with pytest.raises(ClusterError) as caught:
        call()
    assert "canary" not in str(caught.value)
    return caught.value


def test_the_package_is_read_only_when_a_cluster_is_reached() -> None:
    code = "import sys, infra.kubernetes.api; sys.exit('kubernetes' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_the_namespace(connect: Callable[..., Api]) -> None:
    assert connect().namespace == "runs"
    assert connect(namespace="other").namespace == "other"


def _named(name: str) -> dict[str, Any]:
    return {"metadata": {"name": name}}


class TestWrite:
    def test_create(self, server: ScriptedServer, api: Api) -> None:
        server.answers = [Answer(201, {**_JOB, "status": {}})]

        assert api.create(_JOB)["status"] == {}
        asked = server.asked[0]
        assert (asked.method, asked.path) == ("POST", "/apis/batch/v1/namespaces/runs/jobs")
        assert asked.query == {"fieldManager": "modelyard", "fieldValidation": "Strict"}
        assert asked.body == _JOB
        assert asked.headers["authorization"] == "Bearer canary-token"

    def test_create_elsewhere(self, server: ScriptedServer, api: Api) -> None:
        api.create(
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": "b"}}
        )
        api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}})

        assert [asked.path for asked in server.asked] == [
            "/api/v1/namespaces/b/pods",
            "/api/v1/namespaces",
        ]

    @pytest.mark.parametrize(
        "manifest",
        [
            {**_JOB, "apiVersion": "batch/v2"},
            {**_JOB, "kind": "Deployment"},
            {**_JOB, "metadata": {}},
            {},
        ],
    )
    def test_what_we_do_not_make(
        self, server: ScriptedServer, api: Api, manifest: dict[str, Any]
    ) -> None:
        assert _refused(lambda: api.create(manifest)).code == "ManifestRefused"
        assert server.asked == []

    def test_one_that_is_there(self, server: ScriptedServer, api: Api) -> None:
        server.answers = [status(409, "AlreadyExists", 'jobs.batch "my-run" already exists')]

        assert _refused(lambda: api.create(_JOB)).code == "Conflict"
        assert len(server.asked) == 1

    def test_a_namespace_that_is_not_there(self, server: ScriptedServer, api: Api) -> None:
        server.answers = [status(404, "NotFound", 'namespaces "runs" not found')]

        assert _refused(lambda: api.create(_JOB)).code == "NamespaceMissing"

    def test_quota_of_two_at_once_is_asked_again(self, server: ScriptedServer, api: Api) -> None:
        message = 'Operation cannot be fulfilled on resourcequotas "gpus": it has been modified'
        server.answers = [status(409, "Conflict", message), Answer(201, _JOB)]

        assert api.create(_JOB) == _JOB

    def test_apply(self, server: ScriptedServer, api: Api) -> None:
        api.apply(_JOB)

        asked = server.asked[0]
        assert (asked.method, asked.path) == (
            "PATCH",
            "/apis/batch/v1/namespaces/runs/jobs/my-run",
        )
        assert asked.headers["content-type"] == "application/apply-patch+yaml"
        assert asked.query["force"] == "true"
        assert asked.query["fieldManager"] == "modelyard"

    def test_patch(self, server: ScriptedServer, api: Api) -> None:
        server.answers = [Answer(body=_JOB), status(404, "NotFound", 'jobs "x" not found')]

        assert api.patch("Job", "my-run", {"metadata": {"finalizers": None}}) == _JOB
        assert server.asked[0].headers["content-type"] == "application/merge-patch+json"
        assert server.asked[0].body == {"metadata": {"finalizers": None}}
        assert api.patch("Job", "my-run", {}) is None

    def test_delete(self, server: ScriptedServer, api: Api) -> None:
        server.answers = [Answer(202, _JOB), status(404, "NotFound", 'jobs "x" not found')]

        assert api.delete("Job", "my-run", grace_seconds=0, propagation="Foreground", uid="u")
        assert server.asked[0].method == "DELETE"
        assert server.asked[0].body == {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Foreground",
            "gracePeriodSeconds": 0,
            "preconditions": {"uid": "u"},
        }
        assert not api.delete("Job", "my-run")
        assert "gracePeriodSeconds" not in server.asked[1].body

    def test_delete_one_that_has_been_replaced(self, server: ScriptedServer, api: Api) -> None:
        message = "Precondition failed: UID in precondition: u, UID in object meta: v"
        server.answers = [status(409, "Conflict", message)]

        assert not api.delete("Job", "my-run", uid="u")
        assert _refused(lambda: api.delete("Job", "my-run")).code == "Conflict"


class TestRead:
    def test_one(self, server: ScriptedServer, api: Api) -> None:
        server.answers = [Answer(body=_JOB), status(404, "NotFound", 'jobs "x" not found')]

        assert api.read("Job", "my-run") == _JOB
        assert api.read("StorageClass", "a/../b", "other") is None
        assert server.asked[1].path == "/apis/storage.k8s.io/v1/storageclasses/a%2F..%2Fb"

    def test_a_kind_that_the_server_does_not_know(self, server: ScriptedServer, api: Api) -> None:
        server.answers = [Answer(404, b"404 page not found\n"), Answer(404, b"404")]
        server.answers = [
            status(404, "NotFound", "the server could not find the requested resource")
        ]

        assert _refused(lambda: api.read("Job", "x")).code == "KindUnknown"

    def test_all_pages(self, server: ScriptedServer, api: Api) -> None:
        server.answers = [
            Answer(
                body={"metadata": {"continue": "more"}, "items": [{"metadata": {"name": "a"}}]}
            ),
            Answer(body={"metadata": {}, "items": [_named("b")]}),
        ]

        found = api.list("Pod", {"a/b": "c", "d": "e"}, "status.phase=Running", namespace="other")

        assert [one["metadata"]["name"] for one in found] == ["a", "b"]
        assert found[0]["kind"] == "Pod"
        assert server.asked[0].path == "/api/v1/namespaces/other/pods"
        assert server.asked[0].query == {
            "labelSelector": "a/b=c,d=e",
            "fieldSelector": "status.phase=Running",
            "limit": "500",
        }
        assert server.asked[1].query["continue"] == "more"

    def test_pages_that_grow_too_old(self, server: ScriptedServer, api: Api) -> None:
        server.answers = [
            Answer(
                body={"metadata": {"continue": "more"}, "items": [{"metadata": {"name": "a"}}]}
            ),
            status(410, "Expired", "The provided continue parameter is too old"),
            Answer(body={"items": [_named("a"), _named("b")]}),
        ]

        assert len(api.list("Pod")) == 2
        assert server.asked[2].query == {"limit": "0", "resourceVersion": "0"}

    def test_all_namespaces_are_one_for_what_has_none(
        self, server: ScriptedServer, api: Api
    ) -> None:
        server.answers = [Answer(body={"items": None})]

        assert api.list("Node", "a") == []
        assert server.asked[0].path == "/api/v1/nodes"

    def test_the_version(self, server: ScriptedServer, api: Api) -> None:
        server.answers = [Answer(body={"gitVersion": "v1.36.0"})]

        assert api.version() == "v1.36.0"

    @pytest.mark.parametrize("allowed", [True, False])
    def test_what_the_account_may(self, server: ScriptedServer, api: Api, allowed: bool) -> None:
        server.answers = [Answer(201, {"status": {"allowed": allowed}})]

        assert api.may("get", "pods", subresource="log") is allowed
        assert server.asked[0].body["spec"]["resourceAttributes"] == {
            "namespace": "runs",
            "verb": "get",
            "resource": "pods",
            "group": "",
            "subresource": "log",
        }


class TestLogs:
    def test_the_last_lines(self, server: ScriptedServer, api: Api) -> None:
        server.answers = [Answer(body=b"one\ntw\xff\n")]

        assert api.log("p", "run", lines=2, since_seconds=60, previous=True) == "one\ntw\ufffd\n"
        assert server.asked[0].path == "/api/v1/namespaces/runs/pods/p/log"
        assert server.asked[0].query == {
            "container": "run",
            "tailLines": "2",
            "sinceSeconds": "60",
            "previous": "true",
        }

    @pytest.mark.parametrize(
        "answer",
        [
            status(400, "BadRequest", 'container "run" in pod "p" is waiting to start'),
            status(404, "NotFound", 'pods "p" not found'),
            status(500, "InternalError", "Get https://node: dial tcp: i/o timeout"),
        ],
    )
    def test_none_is_to_be_had(self, server: ScriptedServer, api: Api, answer: Answer) -> None:
        server.answers = [answer]

        assert api.log("p") is None

    def test_one_that_is_forbidden(self, server: ScriptedServer, api: Api) -> None:
        server.answers = [status(403, "Forbidden", 'User "a" cannot get resource "pods/log"')]

        assert _refused(lambda: api.log("p")).code == "Forbidden"
        assert _refused(lambda: list(api.follow_log("p"))).code == "Forbidden"

    def test_lines_as_they_come(self, server: ScriptedServer, api: Api) -> None:
        server.answers = [Answer(chunks=[b"one\ntw", b"o\n\n\xc3", b"\xa9\nrest"])]

        found = list(api.follow_log("p", "run", since_time="2026-01-01T00:00:00Z"))

        assert found == ["one", "two", "", "\u00e9", "rest"]
        assert server.asked[0].query == {
            "container": "run",
            "follow": "true",
            "sinceTime": "2026-01-01T00:00:00Z",
        }

    def test_a_connection_that_breaks(self, server: ScriptedServer, api: Api) -> None:
        server.answers = [Answer(chunks=[b"one\n"], cut=True)]
        lines = api.follow_log("p")

        assert next(lines) == "one"
        assert _refused(lambda: next(lines)).transient

    def test_none_yet(self, server: ScriptedServer, api: Api) -> None:
        server.answers = [status(400, "BadRequest", "waiting to start")]

        assert list(api.follow_log("p")) == []

    def test_one_who_stops_listening(self, server: ScriptedServer, api: Api) -> None:
        server.answers = [Answer(chunks=[b"one\n"] * 1000)]
        lines = api.follow_log("p")

        assert next(lines) == "one"
        lines.close()  # type: ignore[attr-defined]
        server.answers = [Answer(body={"gitVersion": "v1"})]
        assert api.version() == "v1"


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

        found = _refused(api.version)

        assert found.code == "ApiUnreachable"
        assert found.transient
        assert len(server.asked) == 3

    def test_what_is_written_is_written_again(self, server: ScriptedServer, api: Api) -> None:
        server.answers = [_OVERLOADED, Answer(201, _JOB)]

        api.create(_JOB)

        assert [asked.body for asked in server.asked] == [_JOB, _JOB]

    def test_a_refusal_is_not_asked_again(self, server: ScriptedServer, api: Api) -> None:
        server.answers = [status(422, "Invalid", "spec: Required value")]

        assert _refused(lambda: api.create(_JOB)).code == "ManifestRefused"
        assert len(server.asked) == 1

    def test_a_silent_server(self, server: ScriptedServer, connect: Callable[..., Api]) -> None:
        server.answers = [Answer(hangs=True)]

        found = _refused(connect(_SILENT).version)

        assert found.code == "ApiUnreachable"
        assert "silent" in found.message
        assert len(server.asked) == 2

    def test_nobody_listens(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with ScriptedServer(Answer()) as gone:
            url = gone.url
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path / "config", url)))

        found = _refused(Api.connect(Cluster(), patience=_QUICK).version)

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
        patience = Patience(first_wait=1.0, longest_wait=4.0)

        waits = [[patience.wait(attempt, 0.0) for _ in range(50)] for attempt in range(1, 6)]

        for found, most in zip(waits, [1, 2, 4, 4, 4], strict=True):
            assert all(most / 2 <= wait <= most for wait in found)
            assert len(set(found)) > 1

    @pytest.mark.parametrize(("said", "waited"), [(3.0, 3.0), (60.0, 4.0)])
    def test_the_server_says_when(self, said: float, waited: float) -> None:
        assert Patience(first_wait=1.0, longest_wait=4.0).wait(1, said) == waited

    def test_retry_after_is_heeded(
        self, server: ScriptedServer, connect: Callable[..., Api]
    ) -> None:
        busy = status(429, "TooManyRequests", "too many requests")
        busy.headers["retry-after"] = "7"
        server.answers = [busy]
        # 7 s would end after the 5 s that there are: it is not asked again.
        patience = Patience(seconds=5.0, first_wait=0.001)

        assert _refused(connect(patience).version).transient
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
        api = Api.connect(Cluster(), patience=_QUICK)

        assert _refused(api.version).code == "Unauthorized"
        token.write_text("canary-second")
        assert api.version() == "v1"

    def test_one_that_is_no_good(self, server: ScriptedServer, api: Api) -> None:
        server.answers = [_guarded("canary-other")]

        assert _refused(api.version).code == "Unauthorized"
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
        api = Api.connect(Cluster(), patience=_QUICK)

        if code:
            found = _refused(api.version)
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
        api = Api.connect(Cluster(), patience=_QUICK)
        authority.write_bytes((tmp_path / "server.crt").read_bytes())

        assert api.version() == "v1"

    def test_no_tls_where_it_is_expected(
        self, server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        url = server.url.replace("http://", "https://")
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path / "config", url)))

        assert _refused(Api.connect(Cluster(), patience=_QUICK).version).message


def test_every_kind_has_a_path() -> None:
    paths = {kind.path("n", "x") for kind in KINDS.values()}

    assert len(paths) == len(KINDS)
    assert "/apis/batch/v1/namespaces/n/jobs/x" in paths
    assert "/api/v1/nodes/x" in paths
