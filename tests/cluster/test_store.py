from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from tests.cluster import objects, patching
from tests.cluster.garbage import Garbage
from tests.cluster.refusals import Expired, Missing, Refusal
from tests.cluster.store import Store

pytestmark = pytest.mark.soak


@pytest.fixture
def store() -> Store:
    return Store()


def _owned(store: Store, name: str, owner: dict[str, Any], **more: Any) -> None:
    one = objects.pod(name)
    reference = {key: owner[key] for key in ("apiVersion", "kind")}
    reference |= {key: owner["metadata"][key] for key in ("name", "uid")} | more
    one["metadata"]["ownerReferences"] = [reference]
    store.create("Pod", one)


def _pods(store: Store) -> list[str]:
    return [one["metadata"]["name"] for one in store.list("Pod")]


def _run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(work, 30))


def test_what_is_given_out_is_a_copy(store: Store) -> None:
    made = store.create("Pod", objects.pod())
    made["spec"]["containers"][0]["image"] = "another"
    assert store.read("Pod", "default", "p")["spec"]["containers"][0]["image"] != "another"


def test_every_change_has_a_version_and_no_change_has_none(store: Store) -> None:
    first = store.create("Pod", objects.pod())
    again = store.patch("Pod", "default", "p", {"metadata": {"labels": {"a": "b"}}})
    same = store.patch("Pod", "default", "p", {"metadata": {"labels": {"a": "b"}}})
    versions = [int(one["metadata"]["resourceVersion"]) for one in (first, again, same)]
    assert versions[0] < versions[1] == versions[2]
    assert again["metadata"]["generation"] == 1


def test_the_status_is_written_apart(store: Store) -> None:
    store.create("Job", {**objects.job(), "status": {"active": 5}})
    assert "status" not in store.read("Job", "default", "j")
    changed = store.set_status("Job", "default", "j", {"active": 1})
    assert changed["metadata"]["generation"] == 1
    store.replace("Job", {**changed, "status": {"active": 7}})
    assert store.read("Job", "default", "j")["status"] == {"active": 1}


def test_names_are_made(store: Store) -> None:
    made = [store.create("Pod", {**objects.pod(), "metadata": {"generateName": "p" * 70}})
            for _ in range(3)]  # fmt: skip
    names = {one["metadata"]["name"] for one in made}
    assert len(names) == 3
    assert all(len(name) == 63 for name in names)


def test_a_pod_on_no_node_goes_at_once(store: Store) -> None:
    store.create("Pod", objects.pod())
    store.delete("Pod", "default", "p")
    with pytest.raises(Missing):
        store.read("Pod", "default", "p")


def test_a_pod_on_a_node_has_its_grace(store: Store) -> None:
    store.create("Pod", objects.pod(nodeName="n", terminationGracePeriodSeconds=40))
    meta = store.delete("Pod", "default", "p")["metadata"]
    assert meta["deletionGracePeriodSeconds"] == 40
    # A later request may only shorten it.
    longer = store.delete("Pod", "default", "p", grace=50)["metadata"]
    assert longer["deletionGracePeriodSeconds"] == 40
    shorter = store.delete("Pod", "default", "p", grace=5)["metadata"]
    assert shorter["deletionGracePeriodSeconds"] == 5
    store.remove("Pod", "default", "p")
    assert _pods(store) == []


def test_a_finalizer_holds_what_is_deleted(store: Store) -> None:
    one = objects.pod()
    one["metadata"]["finalizers"] = ["tests/held"]
    store.create("Pod", one)
    store.delete("Pod", "default", "p", grace=0)
    assert "deletionTimestamp" in store.read("Pod", "default", "p")["metadata"]
    with pytest.raises(Refusal, match="no new finalizers can be added"):
        store.patch("Pod", "default", "p", {"metadata": {"finalizers": ["tests/held", "a/b"]}})
    store.patch("Pod", "default", "p", {"metadata": {"finalizers": None}})
    assert _pods(store) == []


def test_dependents_go_with_their_owner(store: Store) -> None:
    garbage = Garbage(store)
    owner = store.create("Job", objects.job())
    _owned(store, "a", owner)
    garbage.collect()
    assert _pods(store) == ["a"]
    store.delete("Job", "default", "j")
    garbage.collect()
    assert _pods(store) == []


def test_an_owner_may_wait_for_its_dependents(store: Store) -> None:
    garbage = Garbage(store)
    owner = store.create("Job", objects.job())
    _owned(store, "a", owner, blockOwnerDeletion=True)
    store.patch("Pod", "default", "a", {"metadata": {"finalizers": ["tests/held"]}})
    store.delete("Job", "default", "j", propagation="Foreground")
    for _ in range(3):
        garbage.collect()
    assert store.find("Job", "default", "j") is not None
    store.patch("Pod", "default", "a", {"metadata": {"finalizers": None}})
    for _ in range(3):
        garbage.collect()
    assert store.find("Job", "default", "j") is None


def test_a_namespace_goes_with_what_is_in_it(store: Store) -> None:
    garbage = Garbage(store)
    store.create("Namespace", {"metadata": {"name": "team"}})
    one = objects.pod()
    one["metadata"]["namespace"] = "team"
    store.create("Pod", one)
    store.delete("Namespace", None, "team")
    with pytest.raises(Refusal, match="because it is being terminated") as refused:
        store.create("Pod", {**one, "metadata": {"name": "q", "namespace": "team"}})
    assert refused.value.code == 403
    for _ in range(3):
        garbage.collect()
    assert store.find("Namespace", None, "team") is None
    assert not any(key[1] == "team" for key in store.objects)


def test_a_watch_goes_on_from_where_it_was(store: Store) -> None:
    async def watched() -> list[tuple[str, str]]:
        store.create("Pod", objects.pod("a"))
        since = store.revision
        store.create("Pod", objects.pod("b"))
        store.create("ConfigMap", {"metadata": {"name": "c"}})
        store.delete("Pod", "default", "a")
        seen = []
        async for type_, _, obj in store.watch(["Pod"], since):
            seen.append((type_, obj["metadata"]["name"]))
            if len(seen) == 2:
                store.create("Pod", objects.pod("d"))
            if len(seen) == 3:
                break
        return seen

    assert _run(watched()) == [("ADDED", "b"), ("DELETED", "a"), ("ADDED", "d")]


def test_a_watch_from_before_all_that_is_known(store: Store) -> None:
    small = Store(remembers=2)

    async def first() -> None:
        async for _ in small.watch(["Pod"], 1):
            pass

    with pytest.raises(Expired):
        _run(first())


def test_the_collector_is_woken(store: Store) -> None:
    async def collected() -> None:
        garbage = Garbage(store)
        garbage.start()
        owner = store.create("Job", objects.job())
        _owned(store, "a", owner)
        store.delete("Job", "default", "j")
        while _pods(store):
            await store.changed(store.revision)
        await garbage.stop()

    _run(collected())


def test_patches(store: Store) -> None:
    two = [objects.container(), {"name": "side", "image": "registry.test/side:1"}]
    store.create("Pod", objects.pod(containers=two))
    changes = {"spec": {"containers": [{"name": "side", "image": "registry.test/side:2"}]}}
    changed = store.patch("Pod", "default", "p", changes, style=patching.STRATEGIC)
    images = [one["image"] for one in changed["spec"]["containers"]]
    assert images == ["registry.test/one:1", "registry.test/side:2"]
    operations = [{"op": "add", "path": "/metadata/labels", "value": {"a": "b"}}]
    changed = store.patch("Pod", "default", "p", operations, style=patching.JSON)
    assert changed["metadata"]["labels"] == {"a": "b"}
    wrong = [{"op": "remove", "path": "/metadata/none"}]
    with pytest.raises(Refusal, match="rejected our request"):
        store.patch("Pod", "default", "p", wrong, style=patching.JSON)
    # A merge patch replaces a list whole, which a pod does not allow.
    with pytest.raises(Refusal, match="pod updates may not change"):
        store.patch("Pod", "default", "p", changes)


def test_claims_of_the_default_class(store: Store) -> None:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    store.create("StorageClass", {
        "metadata": {"name": "disk",
                     "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": "tests/disk"})  # fmt: skip
    made = store.create("PersistentVolumeClaim", {"metadata": {"name": "c"}, "spec": spec})
    assert made["spec"]["storageClassName"] == "disk"
    assert made["status"] == {"phase": "Pending"}
