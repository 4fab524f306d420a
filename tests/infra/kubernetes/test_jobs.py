from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from infra.instance_types import InstanceType
from infra.kubernetes import names
from infra.kubernetes.api_errors import ClusterError
from infra.kubernetes.attempt_spec import AttemptSpec, Placement
from infra.kubernetes.cluster import ClusterConfig
from infra.kubernetes.jobs import AttemptStatus, Jobs
from tests.infra.kubernetes.fake_api import FakeApi, silent
from tests.infra.kubernetes.objects import IMAGE, NOW, RUN, event, job, pod, terminated

NAME = names.job_name(RUN, 1)
OTHER_RUN = "0b5e7a44-2b1c-4c53-9b0e-111111111111"


def wanted(nodes: int = 1, attempt: int = 1) -> AttemptSpec:
    shape = InstanceType(cpu=1, memory_gib=1)
    return AttemptSpec(
        flow_run_id=RUN, attempt=attempt, pool="gpu", flow="train", run_name="mine",
        placement=Placement(shape, nodes=nodes),
    )  # fmt: skip


def jobs(api: FakeApi) -> Jobs:
    return Jobs(api, ClusterConfig(image=IMAGE))  # type: ignore[arg-type]


def kinds(api: FakeApi) -> list[str]:
    return sorted(kind for kind, _ in api.objects)


class TestStart:
    def test_one_node_has_a_job_alone(self) -> None:
        api = FakeApi()

        assert jobs(api).start(wanted()) == NAME
        assert kinds(api) == ["Job"]

    def test_several_nodes_have_a_service_that_goes_with_the_job(self) -> None:
        api = FakeApi()

        jobs(api).start(wanted(nodes=3))

        assert kinds(api) == ["Job", "Service"]
        owner = api.objects["Service", NAME]["metadata"]["ownerReferences"][0]
        assert owner["uid"] == api.objects["Job", NAME]["metadata"]["uid"]

    @pytest.mark.parametrize("lost", [set(), {"create Job"}, {"create Job", "create Service"}])
    def test_started_twice_there_is_one(self, lost: set[str]) -> None:
        api = FakeApi()
        api.loses = lost

        assert jobs(api).start(wanted(nodes=2)) == NAME
        assert jobs(api).start(wanted(nodes=2)) == NAME
        assert kinds(api) == ["Job", "Service"]
        assert api.made == 2

    def test_what_is_somebody_elses_is_not_taken(self) -> None:
        foreign = job()
        foreign["metadata"]["labels"] = {}

        with pytest.raises(ClusterError) as caught:
            jobs(FakeApi(foreign)).start(wanted())
        assert caught.value.code == "Conflict"

    def test_without_its_service_there_is_no_job(self) -> None:
        api = FakeApi()
        api.fails["create Service"] = ClusterError("No.", code="Forbidden")

        with pytest.raises(ClusterError, match="No"):
            jobs(api).start(wanted(nodes=2))
        assert api.objects == {}

    def test_what_could_not_be_taken_back_is_told_all_the_same(self) -> None:
        api = FakeApi()
        api.fails = {"create Service": silent(), "delete Job": silent()}

        with pytest.raises(ClusterError) as caught:
            jobs(api).start(wanted(nodes=2))
        assert caught.value.transient


class TestFind:
    def test_a_job_that_is_made_between_the_lists_is_seen(self) -> None:
        api = FakeApi()
        listed = api.list

        def lists(kind: str, labels: Any = "") -> list[dict[str, Any]]:
            found = listed(kind, labels)
            if kind == "Job":
                api.put(job(), pod())
            return found

        api.list = lists  # type: ignore[method-assign]
        (found,) = jobs(api).find().values()

        assert found.job is not None
        assert found.is_active

    def test_pods_whose_job_is_gone_are_without(self) -> None:
        (found,) = jobs(FakeApi(pod())).find().values()

        assert found.job is None
        assert found.is_active

    def test_attempts_are_told_apart(self) -> None:
        api = FakeApi(
            job(), pod(), job(attempt=2), pod(attempt=2), pod(attempt=2, index=1),
            job(attempt=2, part="component"), job(run=OTHER_RUN), pod(run=OTHER_RUN, attempt=7),
        )  # fmt: skip

        found = jobs(api).find()

        assert set(found) == {(RUN, 1), (RUN, 2), (OTHER_RUN, 1), (OTHER_RUN, 7)}
        assert len(found[RUN, 2].jobs) == 2
        assert len(found[RUN, 2].pods) == 2
        assert found[OTHER_RUN, 7].job is None
        assert api.asked == ["list Job", "list Pod", "read Job"]  # the last, of pods without one

    def test_of_one_run(self) -> None:
        api = FakeApi(job(), job(run=OTHER_RUN))

        assert set(jobs(api).find(RUN)) == {(RUN, 1)}

    def test_what_is_not_ours_is_not_found(self) -> None:
        nameless, foreign = job(attempt=3), pod()
        nameless["metadata"]["labels"][names.ATTEMPT] = "third"
        foreign["metadata"]["labels"].pop(names.MANAGED_BY)

        assert jobs(FakeApi(nameless, foreign)).find() == {}

    def test_other_attempts_that_go_on(self) -> None:
        over = job(attempt=2, condition="Complete")
        api = FakeApi(job(), pod(), over, job(attempt=3))

        assert [one.attempt for one in jobs(api).others(RUN, 3)] == [1]

    def test_events_that_may_not_be_seen_are_none(self) -> None:
        api = FakeApi(event(job(), "FailedCreate") | {"metadata": {"name": "e"}})
        assert len(jobs(api).events()) == 1

        api.fails["list Event"] = ClusterError("No.", code="Forbidden")
        assert jobs(api).events() == []

        api.fails["list Event"] = silent()
        with pytest.raises(ClusterError):
            jobs(api).events()


class TestFound:
    @pytest.mark.parametrize(
        ("found", "going"),
        [
            (AttemptStatus(RUN, 1, (job(),), (pod(),)), True),
            (AttemptStatus(RUN, 1, (job(),)), True),
            (AttemptStatus(RUN, 1, (), (pod(),)), True),
            (AttemptStatus(RUN, 1, (job(condition="Failed"),), (pod(deleted=1),)), True),
            (AttemptStatus(RUN, 1, (job(condition="Complete"), job(part="component"))), True),
            (AttemptStatus(RUN, 1, (job(condition="Complete"),), (pod("Succeeded"),)), False),
            (AttemptStatus(RUN, 1), False),
        ],
    )
    def test_going(self, found: AttemptStatus, going: bool) -> None:
        assert found.is_active is going

    def test_pods_that_are_gone_are_remembered_as_ended(self) -> None:
        before = AttemptStatus(RUN, 1, (job(),), (pod(), pod(index=1)))

        now = AttemptStatus(RUN, 1, (job(),), (pod(),)).with_gone_pods(before)
        later = AttemptStatus(RUN, 1, (job(),)).with_gone_pods(now)

        assert [one["status"]["phase"] for one in now.own_pods] == ["Running", "Failed"]
        assert [one["status"]["phase"] for one in later.own_pods] == ["Failed", "Failed"]
        assert all("deletionTimestamp" in one["metadata"] for one in later.own_pods)
        assert AttemptStatus(RUN, 1).with_gone_pods(None) == AttemptStatus(RUN, 1)

    def test_pods_of_components_are_not_its_own(self) -> None:
        found = AttemptStatus(RUN, 1, (job(part="component"),), (pod(part="component"),))

        assert found.job is None
        assert found.own_pods == ()


class TestStop:
    def test_job_before_pods_and_asked_once(self) -> None:
        api = FakeApi(job(), pod(), pod("Pending", index=1))
        ours = jobs(api)

        ours.stop(ours.find()[RUN, 1], NOW)
        ours.stop(ours.find()[RUN, 1], NOW)

        pods = [f"{NAME}-{index}-abcde" for index in (0, 1)]
        assert api.deleted == [("Job", NAME, None), *(("Pod", name, None) for name in pods)]

    @pytest.mark.parametrize(("after", "gone"), [(34, False), (36, True)])
    def test_a_pod_that_does_not_end_is_taken_away(self, after: float, gone: bool) -> None:
        api = FakeApi(job(), pod())
        ours = jobs(api)
        ours.stop(ours.find()[RUN, 1], NOW)
        left = ours.find()[RUN, 1]
        assert not ours.gone(left)

        ours.stop(left, NOW + timedelta(seconds=after))

        assert ours.gone(left) is gone
        assert api.deleted[-1][2] == (0 if gone else None)

    def test_another_object_of_the_name_is_left(self) -> None:
        api = FakeApi(job())
        ours = jobs(api)
        found = ours.find()[RUN, 1]
        api.objects["Job", NAME]["metadata"]["uid"] = "another"

        ours.stop(found, NOW)

        assert api.deleted == []

    def test_what_a_component_made_ends_as_well(self) -> None:
        api = FakeApi(job(part="component"))
        ours = jobs(api)

        ours.stop(ours.find()[RUN, 1], NOW)

        assert api.objects == {}


class TestLastLines:
    def lines(self, api: FakeApi, *pods: Any, **which: Any) -> list[str]:
        return jobs(api).last_lines(AttemptStatus(RUN, 1, (job(),), pods), **which)

    def test_of_the_container_that_died(self) -> None:
        api = FakeApi()
        api.logs = {(f"{NAME}-0-abcde", "run"): "fine", (f"{NAME}-1-abcde", "run"): "a\nb\nc"}
        failed = pod("Failed", index=1, state=terminated(1))

        assert self.lines(api, pod(), failed, most=2) == ["b", "c"]
        assert self.lines(api, pod(), failed, pod=f"{NAME}-0-abcde") == ["fine"]

    def test_of_an_init_container(self) -> None:
        api = FakeApi()
        api.logs = {(f"{NAME}-0-abcde", "fetch"): "no such bucket"}

        assert self.lines(api, pod("Failed", init=terminated(1))) == ["no such bucket"]

    def test_where_the_log_is_gone_the_pod_tells_its_end(self) -> None:
        told = pod("Failed", state=terminated(1, message="Traceback\nImportError: x"))

        assert self.lines(FakeApi(), told) == ["Traceback", "ImportError: x"]

    def test_of_what_never_started_there_are_none(self) -> None:
        assert self.lines(FakeApi(), pod("Pending")) == []
        assert self.lines(FakeApi()) == []
