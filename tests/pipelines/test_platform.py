from typing import Any

import pytest

from infra.errors import BadInputError
from pipelines import claims, platform, reading
from pipelines.faults import PipelineInvalidError
from pipelines.platform_forms import KubernetesSettings
from tests.pipelines import corpus


def _settings(executor: str, name: str = "kubernetes") -> KubernetesSettings:
    found = reading.read_bytes(corpus.compiled(name), "p.yaml")
    return platform.read(found.kubernetes[executor])


def _input(name: str) -> dict[str, Any]:
    return {"componentInputParameter": name}


_GIVEN = {
    "secret": "from-outside",
    "selector": {"disk": "ssd"},
    "toleration": [{"key": "gpu", "operator": "Exists"}, {"operator": "Exists"}],
    "affinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchExpressions": [{"key": "zone", "operator": "Exists"}]}]
        }
    },
}
_MADE = {("name-secret", "Output"): "made-up"}

# What the corpus asks for without any value from elsewhere.
_FIXED = {
    "env": [
        {
            "name": "PASSWORD",
            "valueFrom": {"secretKeyRef": {"name": "s", "key": "password", "optional": False}},
        },
        {
            "name": "KEY",
            "valueFrom": {"configMapKeyRef": {"name": "c", "key": "key", "optional": False}},
        },
        {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
    ],
    "volumes": [
        {"name": "secret-0", "secret": {"secretName": "s", "optional": True}},
        {"name": "config-map-0", "configMap": {"name": "c", "optional": False}},
        {"name": "scratch", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}},
        {
            "name": "big",
            "ephemeral": {
                "volumeClaimTemplate": {
                    "metadata": {"labels": {"a": "b"}},
                    "spec": {
                        "accessModes": ["ReadWriteOnce"],
                        "resources": {"requests": {"storage": "5Gi"}},
                    },
                }
            },
        },
    ],
    "volumeMounts": [
        {"name": "secret-0", "mountPath": "/secret"},
        {"name": "config-map-0", "mountPath": "/config"},
        {"name": "scratch", "mountPath": "/scratch"},
        {"name": "big", "mountPath": "/big"},
    ],
    "nodeSelector": {"disk": "ssd"},
    "tolerations": [
        {
            "key": "k",
            "operator": "Equal",
            "value": "v",
            "effect": "NoExecute",
            "tolerationSeconds": 30,
        }
    ],
    "affinity": {
        "nodeAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [
                {
                    "weight": 10,
                    "preference": {
                        "matchExpressions": [
                            {"key": "zone", "operator": "In", "values": ["a", "b"]}
                        ]
                    },
                }
            ]
        }
    },
    "imagePullSecrets": [{"name": "registry"}],
    "imagePullPolicy": "Always",
    "metadata": {"labels": {"team": "blue"}, "annotations": {"note": "text"}},
    "activeDeadlineSeconds": 120,
    "securityContext": {"runAsUser": 1000, "runAsGroup": 0},
}


class TestFixed:
    def test_everything_that_the_compiler_writes(self) -> None:
        pod = platform.resolve(_settings("exec-add"), {})

        assert pod == _FIXED

    def test_nothing_asks_for_nothing(self) -> None:
        assert platform.resolve(platform.read({}), {}) == {}

    def test_pods_to_be_near_to_and_away_from(self) -> None:
        near = {"topologyKey": "zone", "matchPodLabels": {"app": "a"}, "namespaces": ["n"]}
        away = {"topologyKey": "host", "anti": True, "weight": 5,
                "matchPodExpressions": [{"key": "k", "operator": "Exists"}]}  # fmt: skip

        pod = platform.resolve(platform.read({"podAffinity": [near, away]}), {})

        assert pod["affinity"] == {
            "podAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": [
                    {
                        "labelSelector": {"matchLabels": {"app": "a"}},
                        "topologyKey": "zone",
                        "namespaces": ["n"],
                    }
                ]
            },
            "podAntiAffinity": {
                "preferredDuringSchedulingIgnoredDuringExecution": [
                    {
                        "weight": 5,
                        "podAffinityTerm": {
                            "labelSelector": {
                                "matchExpressions": [{"key": "k", "operator": "Exists"}]
                            },
                            "topologyKey": "host",
                        },
                    }
                ]
            },
        }

    def test_shared_memory(self) -> None:
        settings = platform.read({"enabledSharedMemory": {"volumeName": "shm", "size": "2Gi"}})

        pod = platform.resolve(settings, {})

        assert pod["volumes"] == [
            {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "2Gi"}}
        ]
        assert pod["volumeMounts"][0]["mountPath"] == "/dev/shm"

    def test_a_class_of_storage(self) -> None:
        volume = {"volumeName": "v", "mountPath": "/v", "accessModes": ["ReadWriteMany"],
                  "size": "1Gi", "storageClassName": "fast"}  # fmt: skip

        pod = platform.resolve(platform.read({"genericEphemeralVolume": [volume]}), {})

        spec = pod["volumes"][0]["ephemeral"]["volumeClaimTemplate"]["spec"]
        assert spec["storageClassName"] == "fast"

    def test_the_same_secret_twice(self) -> None:
        mounts = [{"secretName": "s.with.dots", "mountPath": path} for path in ("/a", "/b")]

        pod = platform.resolve(platform.read({"secretAsVolume": mounts}), {})

        assert [one["name"] for one in pod["volumes"]] == ["secret-0", "secret-1"]


class TestValues:
    def test_of_inputs_and_outputs(self) -> None:
        pod = platform.resolve(_settings("exec-echo"), _GIVEN, _MADE)

        assert [one["valueFrom"] for one in pod["env"]] == [
            {"secretKeyRef": {"name": "from-outside", "key": "password", "optional": False}},
            {"configMapKeyRef": {"name": "made-up", "key": "key", "optional": False}},
        ]
        assert pod["nodeSelector"] == {"disk": "ssd"}
        assert pod["tolerations"] == [
            {"key": "gpu", "operator": "Exists"},
            {"operator": "Exists"},
        ]
        terms = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        assert terms["nodeSelectorTerms"][0]["matchExpressions"][0]["key"] == "zone"
        assert "volumes" not in pod  # its secret's name is null

    def test_within_a_loop(self) -> None:
        pod = platform.resolve(_settings("exec-add-2"), {"pipelinechannel--secret": "x"})

        assert pod["env"][0]["valueFrom"]["secretKeyRef"]["name"] == "x"

    @pytest.mark.parametrize("null", [{}, dict.fromkeys(_GIVEN)])
    def test_null_switches_a_setting_off(self, null: dict[str, Any]) -> None:
        made = {("name-secret", "Output"): None}

        assert platform.resolve(_settings("exec-echo"), null, made) == {}

    def test_one_toleration(self) -> None:
        settings = platform.read({"tolerations": [{"tolerationJson": _input("t")}]})
        one = {"key": "k", "value": "v", "effect": "NoSchedule"}

        assert platform.resolve(settings, {"t": one})["tolerations"] == [one]
        assert platform.resolve(settings, {"t": {}}) == {}
        assert platform.resolve(settings, {"t": []}) == {}

    def test_resource_claims(self) -> None:
        settings = platform.read(
            {
                "podResourceClaims": [
                    {"resourceClaimTemplateName": "fixed"},
                    {"resourceClaimJson": _input("c")},
                ]
            }
        )
        fixed = {"name": "fixed", "resourceClaimTemplateName": "fixed"}
        given = [{"resourceClaimName": "one"}, {"name": "n", "resourceClaimTemplateName": "two"}]

        assert [value.component_input_parameter for value in platform.values(settings)] == ["c"]
        assert platform.resolve(settings, {"c": given})["resourceClaims"] == [
            fixed,
            {"name": "one", "resourceClaimName": "one"},
            {"name": "n", "resourceClaimTemplateName": "two"},
        ]
        assert platform.resolve(settings, {"c": given[1]})["resourceClaims"] == [fixed, given[1]]
        assert platform.resolve(settings, {"c": None})["resourceClaims"] == [fixed]
        with pytest.raises(PipelineInvalidError) as caught:
            platform.resolve(settings, {"c": {"name": "n"}})
        assert [fault.place for fault in caught.value.faults] == ["podResourceClaims[1]"]

    def test_preferred_affinity(self) -> None:
        settings = platform.read({"nodeAffinity": [{"nodeAffinityJson": _input("a")}]})
        preferred = [{"weight": 1, "preference": {}}]
        given = {"a": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}

        found = platform.resolve(settings, given)["affinity"]["nodeAffinity"]

        assert found == {"preferredDuringSchedulingIgnoredDuringExecution": preferred}

    def test_claims(self) -> None:
        pod = platform.resolve(
            _settings("exec-echo", "volumes"), {}, {("createpvc", "name"): "claim-x"}
        )

        assert pod["volumes"] == [
            {"name": "claim-0", "persistentVolumeClaim": {"claimName": "claim-x"}},
            {"name": "claim-1", "persistentVolumeClaim": {"claimName": "fixed"}},
        ]
        assert pod["volumeMounts"] == [
            {"name": "claim-0", "mountPath": "/data", "subPath": "part"},
            {"name": "claim-1", "mountPath": "/fixed"},
        ]

    @pytest.mark.parametrize(
        "old",
        [
            {"constant": "c"},
            {"componentInputParameter": "p"},
            {"taskOutputParameter": {"producerTask": "t", "outputParameterKey": "o"}},
        ],
    )
    def test_claims_as_older_compilers_name_them(self, old: dict[str, Any]) -> None:
        settings = platform.read({"pvcMount": [{"mountPath": "/m", **old}]})

        pod = platform.resolve(settings, {"p": "c"}, {("t", "o"): "c"})

        assert pod["volumes"][0]["persistentVolumeClaim"] == {"claimName": "c"}

    def test_what_is_missing_or_wrong_is_told_at_once(self) -> None:
        given = {"secret": 3, "selector": {"a": 1}, "toleration": [{"key": ""}],
                 "affinity": {"requiredDuringSchedulingIgnoredDuringExecution": [1]}}  # fmt: skip

        with pytest.raises(BadInputError) as caught:
            platform.resolve(_settings("exec-echo"), given, {})

        assert isinstance(caught.value, PipelineInvalidError)
        assert caught.value.code == "PlatformInvalid"
        assert {fault.place for fault in caught.value.faults} == {
            "secretAsEnv[0]", "configMapAsEnv[0]", "nodeSelector", "tolerations[0]",
            "nodeAffinity[0]",
        }  # fmt: skip

    def test_two_volumes_at_one_place(self) -> None:
        empty = [{"volumeName": name, "mountPath": path}
                 for name, path in (("a", "/m"), ("b", "/m/"))]  # fmt: skip
        with pytest.raises(PipelineInvalidError, match="/m/: Two volumes") as caught:
            platform.resolve(platform.read({"emptyDirMounts": empty}), {})
        assert caught.value.code == "PlatformInvalid"

    def test_a_claim_without_a_name(self) -> None:
        settings = platform.read(
            {"pvcMount": [{"mountPath": "/m", "pvcNameParameter": _input("p")}]}
        )

        with pytest.raises(BadInputError, match="claim's name is missing"):
            platform.resolve(settings, {})


class TestRead:
    @pytest.mark.parametrize(
        ("config", "place"),
        [
            ({"typo": 1}, "typo"),
            ({"secretAsEnv": [{"keyToEnv": []}]}, "secretAsEnv[0]"),
            ({"secretAsEnv": {}}, "secretAsEnv"),
            (
                {"secretAsEnv": [{"secretName": "s", "keyToEnv": [{"secretKey": "k"}]}]},
                "secretAsEnv[0].keyToEnv[0].envVar",
            ),
            (
                {
                    "secretAsEnv": [
                        {"secretName": "s", "keyToEnv": [{"secretKey": "k", "envVar": "A=B"}]}
                    ]
                },
                "secretAsEnv[0].keyToEnv[0].envVar",
            ),
            ({"secretAsVolume": [{"secretName": "s"}]}, "secretAsVolume[0].mountPath"),
            (
                {"secretAsVolume": [{"secretName": "s", "mountPath": "/a/../b"}]},
                "secretAsVolume[0].mountPath",
            ),
            ({"configMapAsEnv": [{}]}, "configMapAsEnv[0]"),
            ({"configMapAsVolume": [{"mountPath": "/m"}]}, "configMapAsVolume[0]"),
            ({"pvcMount": [{"mountPath": "/m"}]}, "pvcMount[0]"),
            (
                {"pvcMount": [{"mountPath": "/m", "constant": "c", "subPath": "../x"}]},
                "pvcMount[0].subPath",
            ),
            ({"imagePullSecret": [{}]}, "imagePullSecret[0]"),
            ({"imagePullPolicy": "Maybe"}, "imagePullPolicy"),
            ({"activeDeadlineSeconds": -1}, "activeDeadlineSeconds"),
            ({"fieldPathAsEnv": [{"name": "A"}]}, "fieldPathAsEnv[0].fieldPath"),
            ({"tolerations": [{"operator": "Equal"}]}, "tolerations[0]"),
            ({"tolerations": [{"key": "k", "effect": "Never"}]}, "tolerations[0].effect"),
            (
                {"tolerations": [{"key": "k", "operator": "Exists", "value": "v"}]},
                "tolerations[0]",
            ),
            (
                {"nodeAffinity": [{"matchFields": [{"key": "k", "operator": "Is"}]}]},
                "nodeAffinity[0].matchFields[0].operator",
            ),
            ({"nodeAffinity": [{"weight": 101}]}, "nodeAffinity[0].weight"),
            ({"podAffinity": [{}]}, "podAffinity[0].topologyKey"),
            ({"podMetadata": {"labels": {"a": 1}}}, "podMetadata.labels.a"),
            (
                {"emptyDirMounts": [{"volumeName": "No_Name", "mountPath": "/m"}]},
                "emptyDirMounts[0].volumeName",
            ),
            (
                {"emptyDirMounts": [{"volumeName": "v", "mountPath": "/m", "sizeLimit": "big"}]},
                "emptyDirMounts[0].sizeLimit",
            ),
            (
                {
                    "genericEphemeralVolume": [
                        {"volumeName": "v", "mountPath": "/m", "accessModes": [], "size": "1Gi"}
                    ]
                },
                "genericEphemeralVolume[0].accessModes",
            ),
            ({"securityContext": {"runAsUser": -1}}, "securityContext.runAsUser"),
            ({"podResourceClaims": [{}]}, "podResourceClaims[0]"),
            (
                {"imagePullSecret": [{"secretNameParameter": {}}]},
                "imagePullSecret[0].secretNameParameter",
            ),
            (
                {
                    "nodeSelector": {
                        "nodeSelectorJson": {
                            "componentInputParameter": "a",
                            "runtimeValue": {"constant": {}},
                        }
                    }
                },
                "nodeSelector.nodeSelectorJson",
            ),
        ],
    )
    def test_each_fault_has_its_place(self, config: dict[str, Any], place: str) -> None:
        with pytest.raises(PipelineInvalidError) as caught:
            platform.read(config)

        assert [fault.place for fault in caught.value.faults] == [f"kubernetes.{place}"]

    def test_all_faults_at_once(self) -> None:
        found = platform.faults({"typo": 1, "imagePullPolicy": "x"}, "here")

        assert {fault.place for fault in found} == {"here.typo", "here.imagePullPolicy"}

    def test_values_that_are_not_fixed(self) -> None:
        found = list(platform.values(_settings("exec-echo")))

        assert [one.component_input_parameter for one in found] == [
            "secret", "absent", None, "selector", "toleration", "affinity",
        ]  # fmt: skip


class TestClaims:
    _ASKED = {"access_modes": ["ReadWriteMany"], "size": "5Gi"}

    def test_are_told_by_their_images(self) -> None:
        assert claims.is_claim("argostub/createpvc")
        assert claims.is_claim("argostub/deletepvc:latest")
        assert not claims.is_claim("python:3.11")

    def test_the_manifest(self) -> None:
        asked = {
            **self._ASKED,
            "pvc_name_suffix": "-shared",
            "storage_class_name": "standard",
            "volume_name": "v",
            "annotations": {"a": "b"},
            "data_source": {"apiGroup": "g", "kind": "VolumeSnapshot", "name": "s"},
        }

        assert claims.build_claim(asked, "run-1") == {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "run-1-shared", "annotations": {"a": "b"}},
            "spec": {
                "accessModes": ["ReadWriteMany"],
                "resources": {"requests": {"storage": "5Gi"}},
                "storageClassName": "standard",
                "volumeName": "v",
                "dataSource": {"apiGroup": "g", "kind": "VolumeSnapshot", "name": "s"},
            },
        }

    def test_names(self) -> None:
        assert claims.build_claim(self._ASKED, "run-1")["metadata"]["name"] == "run-1"
        named = {**self._ASKED, "pvc_name": "mine"}
        assert claims.build_claim(named, "run-1")["metadata"]["name"] == "mine"

    def test_no_class_is_another_thing_than_the_default_class(self) -> None:
        none = claims.build_claim({**self._ASKED, "storage_class_name": ""}, "x")
        assert none["spec"]["storageClassName"] == ""
        assert "storageClassName" not in claims.build_claim(self._ASKED, "x")["spec"]

    @pytest.mark.parametrize(
        "asked",
        [
            {},
            {"access_modes": [], "size": "1Gi"},
            {"access_modes": ["All"], "size": "1Gi"},
            {"access_modes": ["ReadWriteOnce"], "size": "big"},
            {**_ASKED, "pvc_name": "a", "pvc_name_suffix": "b"},
            {**_ASKED, "annotations": {"a": 1}},
            {**_ASKED, "typo": 1},
        ],
    )
    def test_what_cannot_be_created(self, asked: dict[str, Any]) -> None:
        with pytest.raises(BadInputError) as caught:
            claims.build_claim(asked, "x")

        assert caught.value.code == "ClaimInvalid"
