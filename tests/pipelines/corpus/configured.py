"""Components that are told of their own configuration, which holds for their tasks in part."""

from typing import NamedTuple

from kfp import dsl, kubernetes

from tests.pipelines.corpus.components import IMAGE

ARGUMENTS = {}
_CLASS = {"size": "large"}
_CONFIG = {
    "affinity": None,
    "env": [{"name": "OWN", "value": "1"}],
    "node_selector": _CLASS,
    "resources": {
        "limits": {"cpu": "9000", "memory": "2Gi", "example.com/quantum": "4"},
        "requests": {"cpu": "500m"},
    },
    "tolerations": [{"key": "big", "operator": "Exists"}],
    "volume_mounts": [{"name": "scratch", "mountPath": "/no/such/place"}],
    "volumes": [{"name": "scratch", "emptyDir": {}}],
}
_NOTHING = {**dict.fromkeys(_CONFIG), "resources": {}}
OUTPUTS = {
    "nothing": {"config": _NOTHING, "own": ""},
    "handed": {"config": _CONFIG, "own": ""},
    "kept": {"config": {**_NOTHING, "env": _CONFIG["env"]}, "own": "1"},
}


@dsl.component(
    base_image=IMAGE,
    task_config_passthroughs=[
        dsl.TaskConfigField.RESOURCES,
        dsl.TaskConfigField.ENV,
        dsl.TaskConfigField.KUBERNETES_AFFINITY,
        dsl.TaskConfigField.KUBERNETES_TOLERATIONS,
        dsl.TaskConfigField.KUBERNETES_NODE_SELECTOR,
        dsl.TaskConfigField.KUBERNETES_VOLUMES,
    ],
)
def show(config: dsl.TaskConfig) -> dict:
    import os

    return {"config": vars(config), "own": os.environ.get("OWN", "")}


@dsl.component(
    base_image=IMAGE,
    task_config_passthroughs=[
        dsl.TaskConfigPassthrough(field=dsl.TaskConfigField.ENV, apply_to_task=True)
    ],
)
def keep(config: dsl.TaskConfig) -> dict:
    import os

    return {"config": vars(config), "own": os.environ.get("OWN", "")}


@dsl.component(base_image=IMAGE)
def unasked(config: dsl.TaskConfig) -> dict:
    return {"config": vars(config), "own": ""}


@dsl.pipeline(name="configured")
def pipeline(memory: str = "2Gi") -> NamedTuple("Told", nothing=dict, handed=dict, kept=dict):
    handed = show().set_env_variable("OWN", "1")
    handed.set_cpu_request("500m").set_cpu_limit("9000").set_memory_limit(memory)
    handed.set_accelerator_type("example.com/quantum").set_accelerator_limit(4)
    kubernetes.add_toleration(handed, "big", "Exists")
    kubernetes.add_node_selector(handed, "size", "large")
    kubernetes.empty_dir_mount(handed, "scratch", "/no/such/place")
    kept = keep().set_env_variable("OWN", "1")
    told = NamedTuple("Told", nothing=dict, handed=dict, kept=dict)
    return told(unasked().output, handed.output, kept.output)
