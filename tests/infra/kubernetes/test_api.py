from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from infra.kubernetes.api import KINDS, Api
from tests.infra.kubernetes.scripted import (
    Answer,
    ScriptedServer,
    refused,
    status,
)

_JOB = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "my-run"}, "spec": {}}


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
        assert refused(lambda: api.create(manifest)).code == "ManifestRefused"
        assert server.asked == []

    def test_one_that_is_there(self, server: ScriptedServer, api: Api) -> None:
        server.answers = [status(409, "AlreadyExists", 'jobs.batch "my-run" already exists')]

        assert refused(lambda: api.create(_JOB)).code == "Conflict"
        assert len(server.asked) == 1

    def test_a_namespace_that_is_not_there(self, server: ScriptedServer, api: Api) -> None:
        server.answers = [status(404, "NotFound", 'namespaces "runs" not found')]

        assert refused(lambda: api.create(_JOB)).code == "NamespaceMissing"

    def test_quota_of_two_at_once_is_asked_again(self, server: ScriptedServer, api: Api) -> None:
        message = 'Operation cannot be fulfilled on resourcequotas "gpus": it has been modified'
        server.answers = [status(409, "Conflict", message), Answer(201, _JOB)]

        assert api.create(_JOB) == _JOB

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
        assert refused(lambda: api.delete("Job", "my-run")).code == "Conflict"


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

        assert refused(lambda: api.read("Job", "x")).code == "KindUnknown"

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
            Answer(body=b"unable to retrieve container logs for containerd://0123"),
        ],
    )
    def test_none_is_to_be_had(self, server: ScriptedServer, api: Api, answer: Answer) -> None:
        server.answers = [answer]

        assert api.log("p") is None

    def test_one_that_is_forbidden(self, server: ScriptedServer, api: Api) -> None:
        server.answers = [status(403, "Forbidden", 'User "a" cannot get resource "pods/log"')]

        assert refused(lambda: api.log("p")).code == "Forbidden"
        assert refused(lambda: list(api.follow_log("p"))).code == "Forbidden"

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
        assert refused(lambda: next(lines)).transient

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


def test_every_kind_has_a_path() -> None:
    paths = {kind.path("n", "x") for kind in KINDS.values()}

    assert len(paths) == len(KINDS)
    assert "/apis/batch/v1/namespaces/n/jobs/x" in paths
    assert "/api/v1/nodes/x" in paths
