"""What a container sees: its volumes, its own root, and of this machine what it may."""

from __future__ import annotations

import base64
import dataclasses
from pathlib import Path

import pytest

from tests.cluster.images import Image
from tests.cluster.small import IMAGE, Small, cluster, needs_root, run

pytestmark = [needs_root, pytest.mark.soak]


def _secret(small: Small, name: str, **data: str) -> None:
    encoded = {key: base64.b64encode(text.encode()).decode() for key, text in data.items()}
    small.store.create("Secret", {"metadata": {"name": name}, "data": encoded})


def test_volumes_are_where_the_manifest_has_them(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("NAS\n")

    async def test() -> None:
        async with cluster(shares={"nas:/data": tmp_path}) as small:
            _secret(small, "keys", a="A", b="B")
            data = {"text": "T", "x": "X"}
            small.store.create("ConfigMap", {"metadata": {"name": "map"}, "data": data})
            volumes = [
                {"name": "own", "emptyDir": {}},
                {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
                {"name": "keys", "secret": {"secretName": "keys", "defaultMode": 0o400, "items": [
                    {"key": "a", "path": "deep/a", "mode": 0o440}]}},
                {"name": "map", "configMap": {"name": "map"}},
                {"name": "told", "downwardAPI": {"items": [
                    {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
                {"name": "nas", "nfs": {"server": "nas", "path": "/data"}},
                {"name": "many", "projected": {"sources": [
                    {"secret": {"name": "keys"}}, {"configMap": {"name": "map"}}]}},
            ]  # fmt: skip
            mounts = [
                {"name": "own", "mountPath": "/modelyard/home"},
                {"name": "own", "mountPath": "/part", "subPath": "below"},
                {"name": "memory", "mountPath": "/dev/shm"},
                {"name": "keys", "mountPath": "/etc/keys"},
                {"name": "map", "mountPath": "/modelyard/map"},
                {"name": "map", "mountPath": "/etc/one.txt", "subPath": "text"},
                {"name": "told", "mountPath": "/told"},
                {"name": "nas", "mountPath": "/nas/here", "readOnly": True},
                {"name": "many", "mountPath": "/many"},
            ]
            script = """
                touch /modelyard/home/mine /part/theirs; ls /modelyard/home/below
                stat -f -c '%b %S' /dev/shm
                cat /etc/keys/deep/a; stat -c %a /etc/keys/deep/a; ls /etc/keys
                cat /modelyard/map/text; cat /etc/one.txt; echo; cat /told/labels
                cat /nas/here/file; touch /nas/here/new 2>/dev/null || echo closed
                ls /many; touch /usr/bin/mine 2>/dev/null || echo closed; ls -A /tmp
                head -c 2000000 /dev/zero >/dev/shm/much 2>/dev/null || echo full
            """
            said = await small.told(
                "volumes", script, container={"volumeMounts": mounts}, volumes=volumes,
                metadata={"labels": {"l": "v"}},
            )  # fmt: skip

            assert said.split("\n") == [
                "theirs", "256 4096", "A440", "deep", "TT", 'l="v"', "NAS", "closed",
                "a", "b", "text", "x", "closed", "full", "",
            ]  # fmt: skip
            assert not Path("/modelyard/map").exists()
            assert not (tmp_path / "new").exists()

    run(test)


def test_memory_is_shared_by_the_containers_of_a_pod() -> None:
    async def test() -> None:
        async with cluster() as small:
            mounts = [{"name": "shm", "mountPath": "/dev/shm"}]
            other = {
                "name": "other", "image": "shell:1", "volumeMounts": mounts,
                "command": ["sh", "-c", "echo word >/dev/shm/w.new; mv /dev/shm/w.new /dev/shm/w"],
            }  # fmt: skip
            one = {
                **other, "name": "run",
                "command": ["sh", "-c", "until cat /dev/shm/w 2>/dev/null; do sleep 0.02; done"],
            }  # fmt: skip
            volumes = [{"name": "shm", "emptyDir": {"medium": "Memory"}}]
            small.pod("pair", volumes=volumes, containers=[one, other])

            assert (await small.ended("pair"))["phase"] == "Succeeded"
            assert await small.said("pair", "run") == "word\n"

    run(test)


def test_a_volume_that_is_not_there_is_waited_for() -> None:
    async def test() -> None:
        async with cluster() as small:
            for name, volume in (
                ("secret", {"secret": {"secretName": "keys"}}),
                ("share", {"nfs": {"server": "nas", "path": "/none"}}),
                ("host", {"hostPath": {"path": "/etc"}}),
            ):
                small.pod(name, volumes=[{"name": "v", **volume}])
            for name, told in (
                ("secret", 'MountVolume.SetUp failed for volume "v" : secret "keys" not found'),
                ("share", "mount.nfs: nas:/none: No such file or directory"),
                ("host", "hostPath type check failed"),
            ):
                message = await small.until(
                    lambda name=name: small.events(name).get("FailedMount")
                )
                assert told in message
                assert small.status(name)["phase"] == "Pending"

    run(test)


def test_the_image_says_what_of_this_machine_a_container_sees() -> None:
    async def test() -> None:
        repository = Path(__file__).resolve().parents[2]
        image = dataclasses.replace(IMAGE, holds=(str(repository),), workdir=str(repository))
        bare = dataclasses.replace(IMAGE, hides=(str(repository),))
        async with cluster(images={"ours:1": image, "bare:1": bare}) as small:
            script = f"test -e {repository}/pyproject.toml && echo there; touch {repository}/no"
            held = await small.told("held", f"pwd; {script}; true", container={"image": "ours:1"})
            hidden = await small.told("hidden", f"{script}; true", container={"image": "bare:1"})

            assert held.splitlines()[:2] == [str(repository), "there"]
            assert "there" not in hidden
            assert not (repository / "no").exists()

    run(test)


def test_a_folder_that_the_image_holds_may_lie_in_another(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    (tmp_path / "outer.txt").write_text("outer")
    (inner / "inner.txt").write_text("inner")

    async def test() -> None:
        image = dataclasses.replace(IMAGE, holds=(str(inner), str(tmp_path)))
        async with cluster(images={"ours:1": image}) as small:
            volume = {
                "container": {
                    "image": "ours:1",
                    "volumeMounts": [{"name": "v", "mountPath": "/tmp"}],
                },
                "volumes": [{"name": "v", "emptyDir": {}}],
            }
            script = f"cat {tmp_path}/outer.txt {inner}/inner.txt"
            assert await small.told("plain", script, container={"image": "ours:1"}) == "outerinner"
            assert await small.told("covered", script, **volume) == "outerinner"

    run(test)


def test_the_user_is_taken_where_the_image_lets_it() -> None:
    async def test() -> None:
        image = dataclasses.replace(IMAGE, honour_user=True)
        async with cluster(images={"user:1": image, "root:1": Image(env=IMAGE.env)}) as small:
            context = {"runAsUser": 1234, "runAsGroup": 5, "runAsNonRoot": True, "fsGroup": 77}
            said = await small.told(
                "user", "id -u; id -g; id -G; touch /tmp/mine && echo wrote",
                container={"image": "user:1"}, securityContext=context,
            )  # fmt: skip
            small.pod(
                "root", container={"image": "root:1"}, securityContext={"runAsNonRoot": True}
            )

            assert said == "1234\n5\n5 77\nwrote\n"
            message = await small.until(
                lambda: small.state("root").get("waiting", {}).get("message", "")
            )
            assert message.startswith("container has runAsNonRoot and image will run as root")

    run(test)


def test_a_container_writes_only_where_its_user_and_its_manifest_let_it() -> None:
    async def test() -> None:
        async with cluster() as small:
            script = "for p in / /tmp; do touch $p/f 2>/dev/null && echo $p; done; true"
            closed = {"securityContext": {"readOnlyRootFilesystem": True}}
            assert await small.told("user", script) == "/tmp\n"
            assert (
                await small.told("root", script, securityContext={"runAsUser": 0}) == "/\n/tmp\n"
            )
            assert await small.told("closed", script, container=closed) == ""

    run(test)


def test_a_service_account_s_files_are_there_unless_refused() -> None:
    async def test() -> None:
        def files(namespace: str, account: str) -> dict[str, bytes]:
            return {"token": f"{namespace}/{account}".encode()}

        async with cluster(account_files=files) as small:
            script = "cat /var/run/secrets/kubernetes.io/serviceaccount/token || echo none"
            assert await small.told("with", script) == "default/default"
            said = await small.told("without", script, automountServiceAccountToken=False)
            assert said.endswith("none\n")

    run(test)
