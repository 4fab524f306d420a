from __future__ import annotations

import json
import threading
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
from kubernetes import watch
from kubernetes.client import ApiException

from tests.cluster import objects
from tests.cluster.cluster import Cluster
from tests.cluster.conftest import Clients
from tests.cluster.refusals import Refusal
from tests.cluster.rights import Rule, User

pytestmark = pytest.mark.soak

_PODS = "/api/v1/namespaces/default/pods"
_APPLY = "application/apply-patch+yaml"


def _told(refused: pytest.ExceptionInfo[ApiException]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(refused.value.body)
    assert found["kind"] == "Status"
    assert found["code"] == refused.value.status
    return found


def test_what_is_created_is_read_back(clients: Clients) -> None:
    made = clients.batch.create_namespaced_job("default", objects.job(), field_validation="Strict")
    read = clients.batch.read_namespaced_job("j", "default")
    assert read.metadata.uid == made.metadata.uid
    assert read.spec.template.metadata.labels["job-name"] == "j"
    assert read.spec.backoff_limit == 6
    assert read.metadata.resource_version == made.metadata.resource_version


def test_an_unknown_field_is_refused_if_that_is_asked(clients: Clients) -> None:
    wrong = objects.pod(containers=[objects.container(comand=["true"])])
    with pytest.raises(ApiException) as refused:
        clients.core.create_namespaced_pod("default", wrong, field_validation="Strict")
    told = _told(refused)
    assert told["code"] == 400
    assert 'unknown field "spec.containers[0].comand"' in told["message"]
    _, status, headers = clients.core.create_namespaced_pod_with_http_info("default", wrong)
    assert status == 201
    assert 'unknown field \\"spec.containers[0].comand\\"' in headers["Warning"]
    read = clients.call("GET", f"{_PODS}/p")
    assert "comand" not in read["spec"]["containers"][0]


def test_what_is_not_allowed_is_told_by_field(clients: Clients) -> None:
    with pytest.raises(ApiException) as refused:
        clients.core.create_namespaced_pod("default", objects.pod("Not_A_Name", containers=[]))
    told = _told(refused)
    assert (told["code"], told["reason"]) == (422, "Invalid")
    assert told["message"].startswith('Pod "Not_A_Name" is invalid: [metadata.name: Invalid value')
    assert {cause["field"] for cause in told["details"]["causes"]} == {
        "metadata.name",
        "spec.containers",
    }


@pytest.mark.parametrize(
    ("path", "code", "message"),
    [
        (f"{_PODS}/none", 404, 'pods "none" not found'),
        ("/apis/batch/v1/namespaces/default/jobs/none", 404, 'jobs.batch "none" not found'),
        ("/api/v1/nothings", 404, "the server could not find the requested resource"),
        ("/apis/none/v1", 404, "the server could not find the requested resource"),
    ],
)
def test_what_is_not_there(clients: Clients, path: str, code: int, message: str) -> None:
    with pytest.raises(ApiException) as refused:
        clients.call("GET", path)
    told = _told(refused)
    assert (told["code"], told["message"]) == (code, message)


@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_nothing_is_written_in_every_namespace_at_once(clients: Clients, method: str) -> None:
    with pytest.raises(ApiException) as refused:
        clients.call(method, "/api/v1/pods", objects.pod() if method == "POST" else None)
    assert _told(refused)["code"] == 405


def test_nothing_is_made_in_a_namespace_that_is_not_there(clients: Clients) -> None:
    with pytest.raises(ApiException) as refused:
        clients.core.create_namespaced_pod("nowhere", objects.pod())
    assert _told(refused)["message"] == 'namespaces "nowhere" not found'


def test_a_name_is_taken_once(clients: Clients) -> None:
    clients.core.create_namespaced_pod("default", objects.pod())
    with pytest.raises(ApiException) as refused:
        clients.core.create_namespaced_pod("default", objects.pod())
    told = _told(refused)
    assert (told["reason"], told["message"]) == ("AlreadyExists", 'pods "p" already exists')


def test_lists_by_labels_and_fields(clients: Clients) -> None:
    for name, colour in (("a", "red"), ("b", "blue"), ("c", "red")):
        clients.core.create_namespaced_pod("default", objects.pod(name, labels={"colour": colour}))

    def names(**selectors: str) -> list[str]:
        found = clients.core.list_namespaced_pod("default", **selectors)
        return [one.metadata.name for one in found.items]

    assert names(label_selector="colour=red") == ["a", "c"]
    assert names(label_selector="colour in (blue, green)") == ["b"]
    assert names(label_selector="colour,colour notin (blue)") == ["a", "c"]
    assert names(label_selector="!colour") == []
    assert names(field_selector="metadata.name!=a,status.phase=Pending") == ["b", "c"]
    with pytest.raises(ApiException, match=r"field label not supported: spec\.colour"):
        names(field_selector="spec.colour=red")


def test_a_list_comes_in_pages(clients: Clients) -> None:
    for name in "abcde":
        clients.core.create_namespaced_pod("default", objects.pod(name))
    seen, token = [], None
    while token != "":
        page = clients.core.list_namespaced_pod("default", limit=2, _continue=token)
        seen.append([one.metadata.name for one in page.items])
        token = page.metadata._continue or ""
    assert seen == [["a", "b"], ["c", "d"], ["e"]]
    raw = clients.call("GET", f"{_PODS}?limit=1")
    assert raw["metadata"]["remainingItemCount"] == 4
    assert set(raw["items"][0]) == {"metadata", "spec", "status"}


def test_a_watch_tells_what_comes_and_goes(clients: Clients) -> None:
    start = clients.core.list_namespaced_pod("default").metadata.resource_version
    clients.core.create_namespaced_pod("default", objects.pod("a", labels={"of": "us"}))
    clients.core.create_namespaced_pod("default", objects.pod("b"))
    clients.core.patch_namespaced_pod("b", "default", {"metadata": {"labels": {"of": "us"}}})
    clients.core.patch_namespaced_pod("a", "default", {"metadata": {"labels": {"of": None}}})
    clients.core.delete_namespaced_pod("b", "default")
    events = watch.Watch().stream(
        clients.core.list_namespaced_pod,
        "default",
        label_selector="of=us",
        resource_version=start,
        timeout_seconds=1,
    )
    assert [(one["type"], one["object"].metadata.name) for one in events] == [
        ("ADDED", "a"),
        ("ADDED", "b"),
        ("DELETED", "a"),
        ("DELETED", "b"),
    ]


def test_a_watch_from_too_long_ago_is_told_so(cluster: Cluster, clients: Clients) -> None:
    for _ in range(3):
        cluster.call(
            cluster.store.create, "Pod", {**objects.pod(), "metadata": {"generateName": "p"}}
        )
    cluster.call(cluster.store.changes.popleft)
    path = f"{_PODS}?watch=1&resourceVersion=1"
    answer = clients.api.call_api(
        path, "GET", auth_settings=["BearerToken"], _preload_content=False
    )[0]
    event = json.loads(answer.data)
    assert event["type"] == "ERROR"
    assert event["object"]["code"] == 410


def test_a_writer_who_is_late_is_refused(clients: Clients) -> None:
    clients.core.create_namespaced_config_map(
        "default", {"metadata": {"name": "c"}, "data": {"a": "1"}}
    )
    mine = clients.call("GET", "/api/v1/namespaces/default/configmaps/c")
    clients.core.patch_namespaced_config_map("c", "default", {"data": {"a": "2"}})
    with pytest.raises(ApiException) as refused:
        clients.core.replace_namespaced_config_map("c", "default", mine)
    told = _told(refused)
    assert told["reason"] == "Conflict"
    assert "the object has been modified" in told["message"]


def test_what_a_manager_applies_is_its_own(clients: Clients) -> None:
    path = "/api/v1/namespaces/default/configmaps/c"

    def apply(manager: str, data: Mapping[str, str], more: str = "") -> dict[str, Any]:
        obj = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": data}
        found: dict[str, Any] = clients.call(
            "PATCH", f"{path}?fieldManager={manager}{more}", obj, **{"Content-Type": _APPLY}
        )
        return found

    apply("one", {"a": "1", "b": "1"})
    assert apply("two", {"c": "2"})["data"] == {"a": "1", "b": "1", "c": "2"}
    # What one wants no more goes, and what two owns stays.
    assert apply("one", {"a": "1"})["data"] == {"a": "1", "c": "2"}
    with pytest.raises(ApiException) as refused:
        apply("two", {"a": "2", "c": "2"})
    told = _told(refused)
    assert told["code"] == 409
    assert told["message"] == 'Apply failed with 1 conflict: conflict with "one" using v1: .data.a'
    assert apply("two", {"a": "2", "c": "2"}, "&force=true")["data"] == {"a": "2", "c": "2"}
    with pytest.raises(ApiException, match="conflict with"):
        apply("one", {"a": "1"})


def test_to_apply_the_same_again_changes_nothing(clients: Clients) -> None:
    path = "/apis/batch/v1/namespaces/default/jobs/j?fieldManager=m"
    first = clients.call("PATCH", path, objects.job(), **{"Content-Type": _APPLY})
    again = clients.call("PATCH", path, objects.job(), **{"Content-Type": _APPLY})
    assert again["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]


def test_dependents_go_as_the_request_says(cluster: Cluster, clients: Clients) -> None:
    def owned(name: str) -> None:
        made = clients.batch.create_namespaced_job("default", objects.job(name))
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": made.metadata.uid}
        one = objects.pod(f"{name}-pod")
        one["metadata"]["ownerReferences"] = [owner]
        clients.core.create_namespaced_pod("default", one)

    for name, policy in (("a", "Background"), ("b", "Orphan"), ("c", "Foreground"), ("d", None)):
        owned(name)
        clients.batch.delete_namespaced_job(name, "default", propagation_policy=policy)

    def collected() -> bool:
        return {key[2] for key in cluster.store.objects if key[0] == "Pod"} == {"b-pod", "d-pod"}

    watched = watch.Watch()
    if not cluster.call(collected):
        for _ in watched.stream(clients.core.list_namespaced_pod, "default", timeout_seconds=30):
            if cluster.call(collected):
                watched.stop()
    assert clients.batch.list_namespaced_job("default").items == []
    # As batch/v1 has it: who says nothing leaves the pods.
    left = {one.metadata.name: one for one in clients.core.list_namespaced_pod("default").items}
    assert set(left) == {"b-pod", "d-pod"}
    assert left["b-pod"].metadata.owner_references is None


def test_a_delete_may_name_the_object_it_means(clients: Clients) -> None:
    clients.core.create_namespaced_pod("default", objects.pod())
    with pytest.raises(ApiException) as refused:
        clients.core.delete_namespaced_pod(
            "p", "default", body={"preconditions": {"uid": "another"}}
        )
    assert _told(refused)["message"].startswith(
        'Operation cannot be fulfilled on pods "p": Precondition failed: UID in precondition: '
    )


async def _lines(
    pod: dict[str, Any], container: str, options: Mapping[str, Any]
) -> AsyncIterator[bytes]:
    if options["previous"]:
        raise Refusal(400, "BadRequest", "there is no log of before")
    for number in range(3):
        yield f"{pod['metadata']['name']} {container} {number}\n".encode()


def _running(cluster: Cluster, name: str = "p", *, waiting: str = "") -> None:
    one = objects.pod(name, nodeName="node-a")
    cluster.call(cluster.store.create, "Pod", one)
    state = {"waiting": {"reason": waiting}} if waiting else {"running": {"startedAt": None}}
    one = {"name": "run", "state": state, "ready": True, "restartCount": 0}
    one |= {"image": "registry.test/one:1", "imageID": ""}
    status = {"phase": "Running", "containerStatuses": [one]}
    cluster.call(cluster.store.set_status, "Pod", "default", name, status)


def test_the_log_of_a_pod(cluster: Cluster, clients: Clients) -> None:
    cluster.server.logs = _lines
    _running(cluster)
    read = clients.core.read_namespaced_pod_log
    assert read("p", "default") == "p run 0\np run 1\np run 2\n"
    assert read("p", "default", limit_bytes=9) == "p run 0\np"
    followed = read("p", "default", follow=True, _preload_content=False)
    assert followed.read() == b"p run 0\np run 1\np run 2\n"
    for options, message in (
        ({"container": "none"}, "container none is not valid for pod p"),
        ({"previous": True}, 'previous terminated container \\"run\\" in pod \\"p\\" not found'),
    ):
        with pytest.raises(ApiException) as refused:
            read("p", "default", **options)
        assert refused.value.status == 400
        assert message in refused.value.body


def test_what_a_node_says_of_a_log_is_told(cluster: Cluster, clients: Clients) -> None:
    async def unreachable(*_: Any) -> AsyncIterator[bytes]:
        raise Refusal(500, "InternalError", "no route to host")
        yield b""

    cluster.server.logs = unreachable
    _running(cluster)
    for follow in (False, True):
        with pytest.raises(ApiException) as refused:
            clients.core.read_namespaced_pod_log("p", "default", follow=follow)
        assert _told(refused)["message"] == "no route to host"


def test_there_is_no_log_before_a_container_begins(cluster: Cluster, clients: Clients) -> None:
    cluster.server.logs = _lines
    _running(cluster, waiting="ContainerCreating")
    with pytest.raises(ApiException) as refused:
        clients.core.read_namespaced_pod_log("p", "default")
    assert _told(refused)["message"] == (
        'container "run" in pod "p" is waiting to start: ContainerCreating'
    )


def test_more_than_the_quota_is_refused_with_the_numbers(clients: Clients) -> None:
    clients.core.create_namespaced_resource_quota(
        "default",
        {"metadata": {"name": "q"}, "spec": {"hard": {
            "requests.nvidia.com/gpu": "3", "pods": "2", "limits.memory": "4Gi"}}},
    )  # fmt: skip

    def pod(name: str, gpus: int) -> dict[str, Any]:
        limits = {"nvidia.com/gpu": str(gpus), "memory": "1Gi"}
        return objects.pod(name, containers=[objects.container(resources={"limits": limits})])

    clients.core.create_namespaced_pod("default", pod("a", 2))
    with pytest.raises(ApiException) as refused:
        clients.core.create_namespaced_pod("default", pod("b", 2))
    told = _told(refused)
    assert told["code"] == 403
    assert told["message"] == (
        'pods "b" is forbidden: exceeded quota: q, requested: requests.nvidia.com/gpu=2, used: '
        "requests.nvidia.com/gpu=2, limited: requests.nvidia.com/gpu=3"
    )
    with pytest.raises(ApiException, match=r"must specify limits\.memory for: run"):
        clients.core.create_namespaced_pod("default", objects.pod("c"))
    used = clients.core.read_namespaced_resource_quota("q", "default").status.used
    assert used == {"requests.nvidia.com/gpu": "2", "pods": "1", "limits.memory": "1Gi"}
    clients.core.delete_namespaced_pod("a", "default")
    clients.core.create_namespaced_pod("default", pod("b", 3))


def test_a_user_may_what_it_was_given(cluster: Cluster, clients: Clients, as_user: Any) -> None:
    reader = as_user(User("reader", rules=(Rule(("get", "list"), ("pods",)),)))
    assert reader.core.list_namespaced_pod("default").items == []
    with pytest.raises(ApiException) as refused:
        reader.batch.create_namespaced_job("default", objects.job())
    told = _told(refused)
    assert (told["code"], told["reason"]) == (403, "Forbidden")
    assert told["message"] == (
        'jobs.batch is forbidden: User "reader" cannot create resource "jobs" in API group '
        '"batch" in the namespace "default"'
    )
    cluster.server.rights.tokens.clear()
    with pytest.raises(ApiException) as unknown:
        reader.core.list_namespaced_pod("default")
    assert _told(unknown)["code"] == 401


def test_a_service_account_may_what_its_roles_say(clients: Clients, as_user: Any) -> None:
    worker = as_user(User.account("default", "worker"))
    rbac, path = (
        "rbac.authorization.k8s.io",
        "/apis/rbac.authorization.k8s.io/v1/namespaces/default",
    )
    log = {"verb": "get", "resource": "pods", "subresource": "log", "namespace": "default"}
    review = {"spec": {"resourceAttributes": log}}
    asked = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    assert worker.call("POST", asked, review)["status"]["allowed"] is False
    clients.call("POST", f"{path}/roles", {
        "metadata": {"name": "r"},
        "rules": [{"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]}]})  # fmt: skip
    subject = {"kind": "ServiceAccount", "name": "worker", "namespace": "default"}
    role = {"apiGroup": rbac, "kind": "Role", "name": "r"}
    binding = {"metadata": {"name": "b"}, "roleRef": role, "subjects": [subject]}
    clients.call("POST", f"{path}/rolebindings", binding)
    assert worker.call("POST", asked, review)["status"]["allowed"] is True
    with pytest.raises(ApiException, match='cannot get resource \\\\"pods\\\\"'):
        worker.core.read_namespaced_pod("p", "default")


def test_an_eviction_minds_disruption_budgets(clients: Clients) -> None:
    clients.core.create_namespaced_pod("default", objects.pod(labels={"app": "a"}))
    budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets"
    clients.call("POST", budgets, {"metadata": {"name": "b"}, "spec": {
        "minAvailable": 1, "selector": {"matchLabels": {"app": "a"}}}})  # fmt: skip
    evict = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}}
    with pytest.raises(ApiException) as refused:
        clients.call("POST", f"{_PODS}/p/eviction", evict)
    assert _told(refused)["code"] == 429
    clients.call("DELETE", f"{budgets}/b")
    clients.call("POST", f"{_PODS}/p/eviction", evict)
    assert clients.core.list_namespaced_pod("default").items == []


def test_what_it_says_of_itself(clients: Clients) -> None:
    assert clients.call("GET", "/version")["gitVersion"] == "v1.36.0"
    groups = {one["name"] for one in clients.call("GET", "/apis")["groups"]}
    assert {"batch", "apps", "storage.k8s.io"} <= groups
    resources = clients.call("GET", "/apis/batch/v1")["resources"]
    assert {"jobs", "jobs/status"} <= {one["name"] for one in resources}


def test_a_dry_run_keeps_nothing(clients: Clients) -> None:
    made = clients.batch.create_namespaced_job("default", objects.job(), dry_run="All")
    assert made.metadata.uid
    assert clients.batch.list_namespaced_job("default").items == []


def test_many_write_at_once(clients: Clients) -> None:
    clients.core.create_namespaced_config_map("default", {"metadata": {"name": "c"}})

    def write(number: int) -> None:
        data = {"data": {str(number): "1"}}
        clients.core.patch_namespaced_config_map("c", "default", data)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(clients.core.read_namespaced_config_map("c", "default").data) == 8
