"""Folders of a task's own: on the disk, in memory, and of a volume that passes with it."""

from kfp import dsl, kubernetes

from tests.pipelines.corpus.components import IMAGE

ARGUMENTS = {}
OUTPUTS = {"Output": "[] [] [] 3"}
MOUNTS = True


@dsl.component(base_image=IMAGE)
def use() -> str:
    import os

    folders = ["/scratch", "/memory", "/passing"]
    before = " ".join(str(os.listdir(folder)) for folder in folders)
    for folder in folders:
        with open(f"{folder}/x", "w") as file:
            file.write("x")
    return f"{before} {sum(len(os.listdir(folder)) for folder in folders)}"


def mounted(task: dsl.PipelineTask) -> dsl.PipelineTask:
    kubernetes.empty_dir_mount(task, "scratch", "/scratch")
    kubernetes.empty_dir_mount(task, "memory", "/memory", "Memory", "1Mi")
    kubernetes.add_ephemeral_volume(task, "passing", "/passing", ["ReadWriteOnce"], "1Gi")
    return task


@dsl.pipeline(name="empty-folders")
def pipeline() -> str:
    first = mounted(use())
    return mounted(use()).after(first).output
