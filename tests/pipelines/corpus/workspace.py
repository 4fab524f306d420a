"""A folder that all tasks of a run share."""

from kfp import dsl

from tests.pipelines.corpus.components import IMAGE

ARGUMENTS = {}
OUTPUTS = {"Output": "shared"}


@dsl.component(base_image=IMAGE)
def leave(folder: str, text: str):
    import os

    with open(os.path.join(folder, "note.txt"), "w") as file:
        file.write(text)


@dsl.component(base_image=IMAGE)
def find(folder: str) -> str:
    import os

    with open(os.path.join(folder, "note.txt")) as file:
        return file.read()


@dsl.pipeline(
    name="workspace",
    pipeline_config=dsl.PipelineConfig(
        workspace=dsl.WorkspaceConfig(
            size="1Gi",
            kubernetes=dsl.KubernetesWorkspaceConfig(
                pvcSpecPatch={"storageClassName": "standard", "accessModes": ["ReadWriteMany"]}
            ),
        ),
        active_deadline_seconds=3600,
        ttl_seconds_after_finished=60,
    ),
)
def pipeline() -> str:
    left = leave(folder=dsl.WORKSPACE_PATH_PLACEHOLDER, text="shared")
    found = find(folder=dsl.WORKSPACE_PATH_PLACEHOLDER)
    return found.after(left).output
