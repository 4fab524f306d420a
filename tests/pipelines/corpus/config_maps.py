"""Config maps as variables and as files, and facts of the pod."""

from kfp import dsl, kubernetes

from tests.pipelines.corpus.components import IMAGE

ARGUMENTS = {}
OUTPUTS = {"Output": "debug debug blue True"}
CONFIG_MAPS = {"settings": {"level": "debug"}}
MOUNTS = True


@dsl.component(base_image=IMAGE)
def read() -> str:
    import os

    with open("/etc/settings/level") as file:
        level = file.read()
    return f"{os.environ['LEVEL']} {level} {os.environ['TEAM']} {bool(os.environ['POD'])}"


@dsl.pipeline(name="config-maps")
def pipeline() -> str:
    task = read()
    kubernetes.use_config_map_as_env(task, "settings", {"level": "LEVEL"})
    kubernetes.use_config_map_as_volume(task, "settings", "/etc/settings")
    kubernetes.add_pod_label(task, "team", "blue")
    kubernetes.use_field_path_as_env(task, "TEAM", "metadata.labels['team']")
    kubernetes.use_field_path_as_env(task, "POD", "metadata.name")
    return task.output
