"""The client and the doctor with the small Kubernetes of the tests."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

import pytest

from infra import instance_types
from infra.kubernetes import doctor
from infra.kubernetes.api import Api
from infra.kubernetes.api_errors import ClusterError
from infra.kubernetes.cluster import ClusterConfig
from infra.kubernetes.transport import RetryPolicy
from infra.kubernetes.watch import WatchSubscription
from infra.settings import Settings
from tests.cluster.cluster import Cluster
from tests.cluster.rights import Rule, User

_WORKER = User(
    "worker",
    rules=(
        Rule(("create", "get", "list", "delete"), ("jobs",), ("batch",)),
        Rule(("get", "list", "delete"), ("pods",)),
        Rule(("get",), ("pods/log",)),
        Rule(("create", "get", "delete"), ("services",)),
        Rule(("list",), ("events", "resourcequotas", "limitranges")),
    ),
)


def _job(name: str, **labels: str) -> dict[str, Any]:
    container = {"name": "run", "image": "registry.example/i:1", "command": ["true"]}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "backoffLimit": 0,
            "template": {"spec": {"restartPolicy": "Never", "containers": [container]}},
        },
    }


def _claim(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name},
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("cluster")) as made:
        yield made


@pytest.fixture
def connect(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Api]:
    def made(user: User | None = None, **configuration: Any) -> Api:
        file = cluster.kubeconfig(user) if user else cluster.folder / "kubeconfig-admin"
        monkeypatch.setenv("KUBECONFIG", str(file))
        patience = RetryPolicy(attempts=3, first_wait=0.001)
        return Api.connect(ClusterConfig(**configuration), patience=patience)

    return made


@pytest.fixture
def api(connect: Callable[..., Api]) -> Api:
    return connect()


def _refused(call: Callable[[], object]) -> ClusterError:
    with pytest.raises(ClusterError) as caught:
        call()
    return caught.value


def test_a_life(api: Api) -> None:
    made = api.create(_job("life", part="one"))

    assert made["metadata"]["uid"]
    assert _refused(lambda: api.create(_job("life"))).code == "Conflict"
    assert [job["metadata"]["name"] for job in api.list("Job", {"part": "one"})] == ["life"]
    assert api.list("Job", "part=two") == []
    assert not api.delete("Job", "life", uid="00000000-0000-0000-0000-000000000000")
    assert api.delete("Job", "life", uid=made["metadata"]["uid"])
    assert api.read("Job", "life") is None
    assert not api.delete("Job", "life")


def test_fields_that_it_does_not_know(api: Api) -> None:
    job = _job("strange")
    job["spec"]["colour"] = "red"

    found = _refused(lambda: api.create(job))

    assert found.code == "ManifestRefused"
    assert "colour" in found.message


def test_fields_that_are_no_good(api: Api) -> None:
    job = _job("Upper")

    found = _refused(lambda: api.create(job))

    assert found.code == "ManifestRefused"
    assert "metadata.name" in found.message


def test_a_namespace_that_is_not_there(connect: Callable[..., Api]) -> None:
    api = connect(namespace="nowhere")

    found = _refused(lambda: api.create(_job("lost")))

    assert found.code == "NamespaceMissing"
    assert "nowhere" in found.message


def test_an_account_with_fewer_rights(connect: Callable[..., Api]) -> None:
    api = connect(_WORKER)

    assert api.may("create", "jobs", "batch")
    assert api.may("get", "pods", subresource="log")
    assert not api.may("list", "nodes")
    found = _refused(lambda: api.read("Secret", "any"))
    assert found.code == "Forbidden"
    assert "secrets" in found.message


class TestWatch:
    LABELS = MappingProxyType({"part": "watched"})

    def listening(self, api: Api, made: Callable[[asyncio.Event], Awaitable[None]]) -> None:
        """Listen while ``made`` runs; its event is set by each notification."""

        async def run() -> None:
            told = asyncio.Event()
            listening = asyncio.create_task(
                WatchSubscription(api, "Job", self.LABELS).listen(told.set)
            )
            async with asyncio.timeout(60):
                await asyncio.wait(
                    [asyncio.create_task(made(told)), listening],
                    return_when=asyncio.FIRST_COMPLETED,
                )
            if listening.done():
                listening.result()
            listening.cancel()

        asyncio.run(run())

    def test_each_change_notifies(self, api: Api) -> None:
        async def made(told: asyncio.Event) -> None:
            await told.wait()  # connected, with nothing there
            told.clear()
            await asyncio.to_thread(api.create, _job("other", part="other"))
            assert not told.is_set()
            await asyncio.to_thread(api.create, _job("watched", part="watched"))
            await told.wait()

        self.listening(api, made)

    def test_a_watch_that_the_server_has_closed_is_opened_again(self, api: Api) -> None:
        opened = 0
        really = api.watch

        @contextmanager
        def closed_at_once(*of: Any) -> Iterator[Iterator[Any]]:
            nonlocal opened
            opened += 1
            with really(*of) as events:
                yield events if opened > 2 else iter(())

        api.watch = closed_at_once  # type: ignore[method-assign]

        async def made(told: asyncio.Event) -> None:
            for _ in range(2):
                await told.wait()
                told.clear()
            while opened < 3:
                await told.wait()
                told.clear()

        self.listening(api, made)
        assert opened == 3

    def test_an_account_that_may_not_watch_is_told_so(self, connect: Callable[..., Api]) -> None:
        api = connect(_WORKER)

        async def never(told: asyncio.Event) -> None:
            await told.wait()

        found = _refused(lambda: self.listening(api, never))
        assert found.code == "Forbidden"
        assert "watch" in found.message


class TestDoctor:
    def _checks(self, connect: Callable[..., Api], user: User | None = None, **given: Any) -> Any:
        connect(user)
        configuration = ClusterConfig.model_validate(given)
        types = instance_types.load_all(Settings())
        return {one.name: one for one in doctor.examine(configuration, types)}

    def test_what_is_missing(self, connect: Callable[..., Api]) -> None:
        found = self._checks(
            connect,
            storage_class="fast",
            image_pull_secrets=["registry"],
            nas={"shared": {"claim": "none"}},
            config_map="none",
        )

        failed = {name for name, one in found.items() if one.result == "failed"}
        assert failed >= {"storage class", "pull secret registry", "nas shared", "variables"}
        assert found["version"].result == found["namespace"].result == "ok"
        assert found["may: jobs.batch"].result == "ok"

    def test_what_is_there(self, connect: Callable[..., Api], cluster: Cluster) -> None:
        api = connect()
        data = {"PREFECT_API_URL": "u", "MLFLOW_TRACKING_URI": "u", "MODELYARD_DATABASE_URL": "u"}
        api.create(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "urls"}, "data": data}
        )
        api.create(_claim("data"))
        found = self._checks(connect, config_map="urls", nas={"shared": {"claim": "data"}})

        assert found["variables"].result == "ok"
        assert "not Bound" in found["nas shared"].message

    def test_the_worker_s_account(self, connect: Callable[..., Api]) -> None:
        found = self._checks(connect, _WORKER, secret="keys")

        assert {name for name, one in found.items() if one.result == "failed"} <= {"nodes"}
        assert found["may: nodes"].result == "warning"
        assert found["variables"].result == found["secrets"].result == "unseen"

    def test_an_account_that_may_nothing(self, connect: Callable[..., Api]) -> None:
        found = self._checks(connect, User("nobody"))

        assert found["may: jobs.batch"].result == "failed"
        assert found["may: pods/log"].result == "failed"
