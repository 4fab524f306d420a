"""Every setting of Kubernetes, fixed and from parameters. This pipeline is only read."""

from typing import Optional

from kfp import dsl, kubernetes

from tests.pipelines.corpus.components import IMAGE, add, echo

ARGUMENTS = {}
OUTPUTS = None


@dsl.component(base_image=IMAGE)
def name_secret() -> str:
    return "made-up"


@dsl.pipeline(name="kubernetes-settings")
def pipeline(
    secret: str = "given",
    absent: Optional[str] = None,
    selector: dict = {"disk": "ssd"},  # noqa: B006 - defaults for the compiler
    toleration: list = [{"key": "gpu", "operator": "Exists"}],  # noqa: B006
    affinity: dict = {},  # noqa: B006
):
    fixed = add(a=1)
    kubernetes.use_secret_as_env(fixed, "s", {"password": "PASSWORD"})
    kubernetes.use_secret_as_volume(fixed, "s", "/secret", optional=True)
    kubernetes.use_config_map_as_env(fixed, "c", {"key": "KEY"})
    kubernetes.use_config_map_as_volume(fixed, "c", "/config")
    kubernetes.add_node_selector(fixed, "disk", "ssd")
    kubernetes.add_toleration(fixed, "k", "Equal", "v", "NoExecute", 30)
    kubernetes.add_node_affinity(
        fixed, [{"key": "zone", "operator": "In", "values": ["a", "b"]}], weight=10
    )
    kubernetes.add_pod_label(fixed, "team", "blue")
    kubernetes.add_pod_annotation(fixed, "note", "text")
    kubernetes.use_field_path_as_env(fixed, "POD", "metadata.name")
    kubernetes.set_image_pull_secrets(fixed, ["registry"])
    kubernetes.set_image_pull_policy(fixed, "Always")
    kubernetes.empty_dir_mount(fixed, "scratch", "/scratch", "Memory", "1Gi")
    kubernetes.add_ephemeral_volume(
        fixed, "big", "/big", ["ReadWriteOnce"], "5Gi", labels={"a": "b"}
    )
    kubernetes.set_timeout(fixed, 120)
    kubernetes.set_security_context(fixed, run_as_user=1000, run_as_group=0)

    given = echo(text="given")
    kubernetes.use_secret_as_env(given, secret, {"password": "PASSWORD"})
    kubernetes.use_secret_as_volume(given, absent, "/secret")
    kubernetes.use_config_map_as_env(given, name_secret().output, {"key": "KEY"})
    kubernetes.add_node_selector_json(given, selector)
    kubernetes.add_toleration_json(given, toleration)
    kubernetes.add_node_affinity_json(given, affinity)

    with dsl.ParallelFor([1, 2]) as number:
        inside = add(a=number)
        kubernetes.use_secret_as_env(inside, secret, {"password": "PASSWORD"})
