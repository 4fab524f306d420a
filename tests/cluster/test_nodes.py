"""Pods as local processes: what they see, and how they end."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.cluster import processes
from tests.cluster.images import Image
from tests.cluster.nodes import LogRefused, NodeShape
from tests.cluster.small import IMAGE, PATIENCE, Small, cluster, needs_root, run
from tests.processes import eventually, runs

pytestmark = [needs_root, pytest.mark.soak]


def _secret(small: Small, name: str, **data: str) -> None:
    encoded = {key: base64.b64encode(text.encode()).decode() for key, text in data.items()}
    small.store.create("Secret", {"metadata": {"name": name}, "data": encoded})


def test_a_pod_runs_its_command_and_says_how_it_was() -> None:
    async def test() -> None:
        async with cluster() as small:
            said = await small.told("one", "echo hello; echo bad >&2; hostname; echo $$$$")

            assert said == "hello\nbad\none\n1\n"
            status = small.status("one")
            assert status["phase"] == "Succeeded"
            ended = small.state("one")["terminated"]
            assert (ended["exitCode"], ended["reason"]) == (0, "Completed")
            held = small.conditions("one")
            assert held["PodScheduled"]["status"] == "True"
            assert held["Initialized"]["status"] == "True"
            assert (held["Ready"]["status"], held["Ready"]["reason"]) == ("False", "PodCompleted")
            assert {"Scheduled", "Pulled", "Created", "Started"} <= set(small.events("one"))

    run(test)


def test_an_exit_code_is_that_of_the_first_process() -> None:
    async def test() -> None:
        async with cluster() as small:
            small.pod("three", "exit 3")
            small.pod("killed", "sh -c 'kill -SEGV $$$$'; exit $?")
            small.pod("missing", container={"command": ["no-such-program"]})

            for name, code, reason in (
                ("three", 3, "Error"), ("killed", 139, "Error"), ("missing", 128, "StartError"),
            ):  # fmt: skip
                assert (await small.ended(name))["phase"] == "Failed"
                ended = small.state(name)["terminated"]
                assert (ended["exitCode"], ended["reason"]) == (code, reason)
            assert (
                'exec: "no-such-program": executable file not found in $PATH'
                in (small.state("missing")["terminated"]["message"])
            )
            assert small.events("missing")["Failed"].startswith("Error: failed to create")

    run(test)


def test_the_environment_is_the_manifest_s_and_nothing_else() -> None:
    os.environ["OF_THE_SERVER"] = "1"

    async def test() -> None:
        image = dataclasses.replace(IMAGE, env={**IMAGE.env, "OF_IMAGE": "1", "PLAIN": "image's"})
        services = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": "443"}
        async with cluster(images={"shell:1": image}, service_environment=services) as small:
            _secret(small, "keys", TOKEN="t0p", OTHER="o")
            small.store.create(
                "ConfigMap", {"metadata": {"name": "map"}, "data": {"URL": "u", "a.b": "x"}}
            )
            fields = {
                "NAME": "metadata.name", "SPACE": "metadata.namespace", "UID": "metadata.uid",
                "LABEL": "metadata.labels['a/b']", "NOTE": "metadata.annotations['c']",
                "NODE": "spec.nodeName", "IP": "status.podIP", "HOST": "status.hostIP",
            }  # fmt: skip
            env: list[dict[str, Any]] = [
                {"name": "PLAIN", "value": "a"},
                {"name": "EXPANDED", "value": "$(PLAIN)-$(URL)-$(NOBODY)-$$(PLAIN)"},
                *(
                    {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}
                    for name, path in fields.items()
                ),
                {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
                {"name": "MIB", "valueFrom": {"resourceFieldRef": {
                    "resource": "limits.memory", "divisor": "1Mi"}}},
                {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "TOKEN"}}},
                {"name": "NONE", "valueFrom": {"secretKeyRef": {
                    "name": "keys", "key": "NONE", "optional": True}}},
            ]  # fmt: skip
            container = {
                "env": env,
                "envFrom": [{"configMapRef": {"name": "map"}},
                            {"secretRef": {"name": "keys"}, "prefix": "S_"},
                            {"secretRef": {"name": "nobody", "optional": True}}],
                "resources": {"limits": {"cpu": "1500m", "memory": "256Mi"}},
                "command": ["env", "-0"],
            }  # fmt: skip
            said = await small.told(
                "env", container=container,
                metadata={"labels": {"a/b": "l"}, "annotations": {"c": "n"}},
            )  # fmt: skip
            pod = small.store.read("Pod", "default", "env")

            found = dict(one.split("=", 1) for one in said.rstrip("\0").split("\0"))
            assert found == {
                **IMAGE.env, **services,
                "HOME": "/", "HOSTNAME": "env", "OF_IMAGE": "1",
                "PLAIN": "a", "EXPANDED": "a-u-$(NOBODY)-$(PLAIN)", "a.b": "x", "URL": "u",
                "S_TOKEN": "t0p", "S_OTHER": "o", "KEY": "t0p", "CPU": "2", "MIB": "256",
                "NAME": "env", "SPACE": "default", "UID": pod["metadata"]["uid"],
                "LABEL": "l", "NOTE": "n", "NODE": "node-a",
                "IP": pod["status"]["podIP"], "HOST": pod["status"]["hostIP"],
            }  # fmt: skip

    try:
        run(test)
    finally:
        del os.environ["OF_THE_SERVER"]


def test_a_secret_of_bytes_reaches_the_environment_as_it_is() -> None:
    async def test() -> None:
        async with cluster() as small:
            data = {"KEY": base64.b64encode(b"\xff\x01a").decode()}
            small.store.create("Secret", {"metadata": {"name": "raw"}, "data": data})
            container = {"envFrom": [{"secretRef": {"name": "raw"}}]}
            said = await small.told("raw", 'printf %s "$KEY" | od -An -tx1', container=container)

            assert said.split() == ["ff", "01", "61"]

    run(test)


def test_command_and_args_stand_over_those_of_the_image() -> None:
    async def test() -> None:
        image = Image(entrypoint=("echo", "entry"), command=("image",), env=IMAGE.env)
        async with cluster(images={"echo:1": image}) as small:
            for name, own, wanted in (
                ("neither", {}, "entry image\n"),
                ("args", {"args": ["$(A)"]}, "entry a\n"),
                ("command", {"command": ["echo", "$(A)"]}, "a\n"),
                ("both", {"command": ["echo"], "args": ["b"]}, "b\n"),
            ):
                env = [{"name": "A", "value": "a"}]
                spec = {"name": "run", "image": "echo:1", "env": env, **own}
                said = await small.told(name, containers=[spec])
                assert said == wanted

    run(test)


def test_services_are_in_the_environment_only_where_links_are_wanted() -> None:
    async def test() -> None:
        async with cluster() as small:
            ports = [{"port": 80, "protocol": "TCP"}]
            small.store.create("Service", {
                "metadata": {"name": "my-web"}, "spec": {"clusterIP": "10.0.0.9", "ports": ports},
            })  # fmt: skip

            linked = await small.told("linked", "env")
            free = await small.told("free", "env", enableServiceLinks=False)

            assert "MY_WEB_SERVICE_HOST=10.0.0.9\n" in linked
            assert "MY_WEB_PORT_80_TCP=tcp://10.0.0.9:80\n" in linked
            assert "MY_WEB" not in free

    run(test)


def test_a_container_waits_for_the_secret_that_it_names() -> None:
    async def test() -> None:
        async with cluster() as small:
            small.pod("late", "echo $A", container={"envFrom": [{"secretRef": {"name": "keys"}}]})
            await small.until(
                lambda: (
                    small.state("late").get("waiting", {}).get("reason")
                    == "CreateContainerConfigError"
                )
            )
            assert small.state("late")["waiting"]["message"] == 'secret "keys" not found'
            assert small.events("late")["Failed"] == 'Error: secret "keys" not found'
            assert small.status("late")["phase"] == "Pending"

            _secret(small, "keys", A="here")
            await small.ended("late")
            assert await small.said("late") == "here\n"

    run(test)


def test_init_containers_run_in_order_and_a_failed_one_ends_the_pod() -> None:
    def starting(name: str, script: str, **more: Any) -> dict[str, Any]:
        shared = [{"name": "all", "mountPath": "/all"}]
        command = ["sh", "-c", script]
        return {
            "name": name,
            "image": "shell:1",
            "command": command,
            "volumeMounts": shared,
            **more,
        }

    async def test() -> None:
        async with cluster() as small:
            volumes = [{"name": "all", "emptyDir": {}}]
            side = starting("side", "echo up >>/all/log; trap 'echo down; exit' TERM; while :; do "
                            "sleep 0.05; done", restartPolicy="Always")  # fmt: skip
            first = starting("first", "echo first >>/all/log")
            second = starting("second", "echo second >>/all/log")
            mounted = {"volumeMounts": [{"name": "all", "mountPath": "/all"}]}
            script = "while ! grep -q up /all/log; do sleep 0.02; done; cat /all/log"
            small.pod(
                "good", script, container=mounted, volumes=volumes,
                initContainers=[first, second, side],
            )  # fmt: skip
            small.pod(
                "bad", "echo never", volumes=volumes,
                initContainers=[starting("broken", "exit 4"), second],
            )  # fmt: skip

            assert (await small.ended("good"))["phase"] == "Succeeded"
            assert await small.said("good", "run") == "first\nsecond\nup\n"
            assert await small.said("good", "side") == "down\n"
            assert (await small.ended("bad"))["phase"] == "Failed"
            assert small.state("bad", "broken")["terminated"]["exitCode"] == 4
            assert small.conditions("bad")["Initialized"]["status"] == "False"

    run(test)


def test_pods_of_a_headless_service_find_each_other_by_name() -> None:
    async def test() -> None:
        async with cluster() as small:
            small.store.create("Service", {
                "metadata": {"name": "gang"},
                "spec": {"clusterIP": "None", "selector": {"g": "1"},
                         "publishNotReadyAddresses": True},
            })  # fmt: skip
            names = ("gang-0.gang", "gang-0.gang.default", "gang-0.gang.default.svc",
                     "gang-0.gang.default.svc.cluster.local")  # fmt: skip
            script = "; ".join(
                f"until getent hosts {name} >/tmp/a; do sleep 0.02; done; cut -d' ' -f1 /tmp/a"
                for name in names
            )
            spec = {"subdomain": "gang", "metadata": {"labels": {"g": "1"}}}
            small.pod("second", script, hostname="gang-1", **spec)
            await small.phase("second", "Running")
            small.pod("first", "hostname -f; sleep 30", hostname="gang-0", **spec)

            assert (await small.ended("second"))["phase"] == "Succeeded"
            address = (await small.phase("first", "Running"))["podIP"]
            assert (await small.said("second")).split() == [address] * 4
            assert address.startswith("127.")
            pod = small.store.read("Pod", "default", "first")
            async for line in small.nodes.logs(pod, "run", {"follow": True}):
                assert line == b"gang-0.gang.default.svc.cluster.local\n"
                break

    run(test)


def test_devices_are_given_to_one_pod_at_a_time() -> None:
    async def test() -> None:
        shape = NodeShape("gpus", devices={"nvidia.com/gpu": 3})
        async with cluster([shape]) as small:

            def limits(count: int) -> dict[str, Any]:
                return {"resources": {"limits": {"nvidia.com/gpu": str(count)}}}

            small.pod("two", "echo $MODELYARD_GPUS; sleep 30", container=limits(2))
            await small.phase("two", "Running")
            one = await small.told("one", "echo $NVIDIA_VISIBLE_DEVICES", container=limits(1))
            none = await small.told("none", "echo ${MODELYARD_GPUS-unset}")
            small.store.delete("Pod", "default", "two", grace=0)
            await small.until(lambda: small.find("Pod", "two") is None)
            three = await small.told("three", "echo $MODELYARD_GPUS", container=limits(3))

            assert (one, none, three) == ("2\n", "unset\n", "0,1,2\n")

    run(test)


def test_a_container_leaves_its_last_words() -> None:
    async def test() -> None:
        async with cluster() as small:
            policy = {"terminationMessagePolicy": "FallbackToLogsOnError"}
            small.pod("says", "echo no; echo why >/dev/termination-log; exit 1", container=policy)
            small.pod("logs", "echo one; echo two; exit 1", container=policy)
            small.pod("plain", "echo one; exit 1")
            small.pod("good", "echo one", container=policy)

            for name, words in (("says", "why\n"), ("logs", "one\ntwo\n"), ("plain", None),
                                ("good", None)):  # fmt: skip
                await small.ended(name)
                assert small.state(name)["terminated"].get("message") == words

    run(test)


def test_nothing_is_left_when_the_cluster_stops() -> None:
    pids: list[int] = []

    async def test() -> None:
        async with cluster() as small:
            script = "trap '' TERM; setsid sleep 60 & sleep 60 & wait"
            small.pod("stubborn", script, terminationGracePeriodSeconds=60)
            await small.phase("stubborn", "Running")
            first = small.nodes.run_of("default", "stubborn").mains[0].running.first
            async with asyncio.timeout(PATIENCE):
                while len(pids) < 3:
                    pids[:] = _below(first)
                    await asyncio.sleep(0.01)

    run(test)
    assert not [pid for pid in pids if runs(pid)]


def _below(first: int) -> list[int]:
    return [first, *(one.pid for one in psutil.Process(first).children(recursive=True))]


def test_pods_end_with_the_process_that_runs_the_nodes(tmp_path: Path) -> None:
    code = textwrap.dedent("""
        from tests.cluster.small import cluster, run

        async def main():
            async with cluster() as small:
                small.pod("long", "sleep 600 & sleep 601")
                await small.phase("long", "Running")
                print(small.nodes.run_of("default", "long").mains[0].running.first, flush=True)
                await small.phase("long", "Failed")

        run(main)
    """)
    root = Path(__file__).resolve().parents[2]
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        cwd=root,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert process.stdout is not None
    first = int(process.stdout.readline())
    below = _below(first)
    process.kill()
    process.wait()
    eventually(lambda: not any(runs(pid) for pid in below), "all of them have ended")
    process.stdout.close()


def test_memory_of_processes_is_counted_once() -> None:
    code = "import os; a = b'x' * 100_000_000; os.fork(); print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        for _ in range(2):  # both of them are there
            process.stdout.readline()
        pids = processes.trees([process.pid])[process.pid]

        assert len(pids) == 2
        assert processes.resident(pids) > 200_000_000
        assert 100_000_000 < processes.charged(pids) < 150_000_000
        process.communicate(b"\n\n")
    assert processes.charged(pids) == 0


def test_logs_are_told_as_they_are_asked_for() -> None:
    async def test() -> None:
        async with cluster() as small:
            go = "while [ ! -e /v/go ]; do sleep 0.02; done"
            volumes = [{"name": "v", "emptyDir": {}}]
            mounts = {"volumeMounts": [{"name": "v", "mountPath": "/v"}]}
            small.pod(
                "talks", f"echo one; echo two; {go}; printf three", container=mounts,
                volumes=volumes,
            )  # fmt: skip
            await small.phase("talks", "Running")
            pod = small.store.read("Pod", "default", "talks")
            seen: list[bytes] = []
            async for line in small.nodes.logs(pod, "run", {"follow": True, "tailLines": 5}):
                seen.append(line)
                if len(seen) == 2:
                    run_ = small.nodes.run_of("default", "talks")
                    (run_.volumes.sources["v"] / "go").touch()

            assert seen == [b"one\n", b"two\n", b"three"]
            await small.ended("talks")
            assert await small.said("talks", tailLines=1) == "three"
            assert await small.said("talks", tailLines=0) == ""
            assert await small.said("talks", sinceSeconds=600) == "one\ntwo\nthree"
            stamped = await small.said("talks", timestamps=True)
            last = stamped.splitlines()[-1].split()[0]
            assert (await small.said("talks", sinceTime=last)).endswith("three")
            assert await small.said("talks", sinceTime="2999-01-01T00:00:00Z") == ""

    run(test)


def test_a_log_that_is_not_there_is_refused_with_its_reason() -> None:
    async def test() -> None:
        async with cluster() as small:
            small.pod("pulls", container={"image": "none/such:1"})
            small.pod("big", container={"resources": {"requests": {"cpu": "999"}}})
            await small.until(lambda: small.state("pulls").get("waiting"))
            for name, options, told in (
                ("pulls", {}, "is waiting to start"),
                ("pulls", {"previous": True}, "previous terminated container"),
                ("big", {}, "does not have a host assigned"),
            ):
                with pytest.raises(LogRefused, match=told) as refused:
                    await small.said(name, **options)
                assert refused.value.code == 400

    run(test)
